"""Restart points of a calibration walk: killed at any moment, the same command goes on at a block border, bit for bit.

What a block's matrices became is written once; the activations that the next block reads replace those of the point before. The
record that names both is written last, so that a kill while writing leaves the point before.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from shoestring.artifact import checksum, write_whole
from shoestring.compress.solution import Solution
from shoestring.errors import DamagedArtifact, DiskFull, FileError, file_error
from shoestring.files import read_object, to_json
from shoestring.model.checkpoint import tensors

RECORD = "walk.json"


@dataclass(frozen=True, slots=True)
class Point:
    """Where a walk stood: blocks done, what the next one reads, and what became of each matrix."""

    blocks: int
    x_NTC: Tensor
    solutions: dict[str, Solution]
    reports: list[dict[str, Any]]


class Restart:
    """Keeps a walk's restart points in a folder, at least `every` seconds apart."""

    def __init__(self, folder: Path, every: float = 20.0, note: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.every, self.note = Path(folder), every, note
        self._files: dict[str, str] = {}
        self._forms: dict[str, Any] = {}
        self._pending: dict[str, Tensor] = {}
        self._written = time.monotonic()
        self._full = False

    def load(self) -> Point | None:
        """The newest point; None when there is none, or when a byte of it is not what was written (the walk then begins anew)."""
        if not (self.folder / RECORD).is_file():
            return None
        try:
            record = self._record()
            x_NTC = self._read(record["x"], record["sha256 of x"])["x"]
            solutions = {name: Solution(form, {}, settings) for name, (form, settings) in record["forms"].items()}
            for file, expected in record["files"].items():
                for key, tensor in self._read(file, expected).items():
                    name, _, part = key.rpartition("/")
                    solutions[name].parts[part] = tensor
        except FileError as error:
            self.note(f"calibration begins anew: {error}")
            self.clear()
            return None
        self._files, self._forms = record["files"], record["forms"]
        return Point(record["blocks"], x_NTC, solutions, record["reports"])

    def done(
        self, blocks: int, x_NTC: Tensor, solutions: Mapping[str, Solution], reports: list[dict[str, Any]], total: int
    ) -> None:
        """Note that so many of `total` blocks are done; write a point if the last one is long ago and blocks remain.

        A full disk is noted, once, and the walk goes on without a new point.

        Raises:
            FileError: the folder can't be written.
        """
        self._pending |= {f"{name}/{part}": tensor for name, own in solutions.items() for part, tensor in own.parts.items()}
        self._forms |= {name: [own.form, own.settings] for name, own in solutions.items()}
        if blocks == total or time.monotonic() - self._written < self.every:
            return
        try:
            self._write(blocks, x_NTC, reports)
        except DiskFull as error:
            if not self._full:
                self.note(f"calibration goes on without a new restart point: {error}")
            self._full = True
        self._written = time.monotonic()

    def _write(self, blocks: int, x_NTC: Tensor, reports: list[dict[str, Any]]) -> None:
        became, x = self.folder / f"blocks-{blocks}.safetensors", self.folder / f"x-{blocks}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tensors.write(self._pending, became)
            tensors.write({"x": x_NTC}, x)
            files = {**self._files, became.name: checksum(became)}
            record = {"blocks": blocks, "x": x.name, "sha256 of x": checksum(x), "files": files, "forms": self._forms}
            record["reports"] = reports
            write_whole(self.folder / RECORD, to_json({"record": record, "sha256": _proof(record)}))
        except OSError as error:
            raise file_error(self.folder, error) from error
        except DiskFull:
            x.unlink(missing_ok=True)
            became.unlink(missing_ok=True)
            raise
        for old in self.folder.glob("x-*.safetensors"):
            if old != x:
                old.unlink()
        self._files, self._pending = files, {}

    def _record(self) -> dict[str, Any]:
        """The record of the newest point, proved by its own digest."""
        found = read_object(self.folder / RECORD)
        record = found.get("record")
        if not isinstance(record, dict) or found.get("sha256") != _proof(record):
            raise DamagedArtifact(self.folder / RECORD, "its own checksum differs")
        return record

    def _read(self, name: str, expected: str) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        file = self.folder / name
        if not file.is_file():
            raise DamagedArtifact(file, "the file is missing")
        if checksum(file) != expected:
            raise DamagedArtifact(file, "its checksum differs")
        found: dict[str, Tensor] = load_file(file)
        return found

    def clear(self) -> None:
        """Forget all points."""
        try:
            for file in [self.folder / RECORD, *self.folder.glob("x-*.safetensors"), *self.folder.glob("blocks-*.safetensors")]:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise file_error(self.folder, error) from error
        self._files = {}


def _proof(record: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(record, sort=True).encode()).hexdigest()
