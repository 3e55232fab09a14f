"""Restart points of a calibration walk: killed at any moment, the same command goes on at a block border, bit for bit.

What a block's matrices became is written once; the activations that the next block reads replace those of the point before. The
record that names both is written last, so that a kill while writing leaves the point before.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from shoestring.artifact import write_whole
from shoestring.errors import file_error

RECORD = "walk.json"


@dataclass(frozen=True, slots=True)
class Point:
    """Where a walk stood: blocks done, what the next one reads, and what became of each matrix."""

    blocks: int
    x_NTC: Tensor
    parts: dict[str, dict[str, Tensor]]
    reports: list[dict[str, Any]]


class Restart:
    """Keeps a walk's restart points in a folder, at least `every` seconds apart."""

    def __init__(self, folder: Path, every: float = 20.0) -> None:
        self.folder, self.every = Path(folder), every
        self._files: list[str] = []
        self._pending: dict[str, Tensor] = {}
        self._written = time.monotonic()

    def load(self) -> Point | None:
        """The newest point; None when there is none, or when it can't be read (the walk then begins anew)."""
        try:
            record = json.loads((self.folder / RECORD).read_text("utf-8"))
            x_NTC = load_file(self.folder / record["x"])["x"]
            parts: dict[str, dict[str, Tensor]] = {}
            for file in record["files"]:
                for key, tensor in load_file(self.folder / file).items():
                    name, _, part = key.rpartition("/")
                    parts.setdefault(name, {})[part] = tensor
            self._files = list(record["files"])
            return Point(record["blocks"], x_NTC, parts, record["reports"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            self.clear()
            return None

    def done(
        self, blocks: int, x_NTC: Tensor, parts: dict[str, dict[str, Tensor]], reports: list[dict[str, Any]], total: int
    ) -> None:
        """Note that so many of `total` blocks are done; write a point if the last one is long ago and blocks remain.

        Raises:
            FileError: the disk is full or the folder can't be written.
        """
        self._pending |= {f"{name}/{part}": t.contiguous() for name, own in parts.items() for part, t in own.items()}
        if blocks == total or time.monotonic() - self._written < self.every:
            return
        written, x_file = f"blocks-{blocks}.safetensors", f"x-{blocks}.safetensors"
        write_whole(self.folder / written, save(self._pending))
        write_whole(self.folder / x_file, save({"x": x_NTC.contiguous()}))
        self._files.append(written)
        record = {"blocks": blocks, "x": x_file, "files": self._files, "reports": reports}
        write_whole(self.folder / RECORD, json.dumps(record))
        for old in self.folder.glob("x-*.safetensors"):
            if old.name != x_file:
                old.unlink()
        self._pending = {}
        self._written = time.monotonic()

    def clear(self) -> None:
        """Forget all points."""
        try:
            for file in [self.folder / RECORD, *self.folder.glob("x-*.safetensors"), *self.folder.glob("blocks-*.safetensors")]:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise file_error(self.folder, error) from error
        self._files = []
