"""Tokens on disk: memory-mapped streams of whole documents, each closed by the tokenizer's end token, with an index.

`documents.parquet` says of each document its `id`, `source`, `side`, `start` and `length` in tokens, and its `scores.<name>`.
`train.bin` and `heldout.bin` are little-endian uint16 (uint32 above 65,536 entries); `*.offsets.npy` holds where each document
starts, and the total as its last entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shoestring import artifact
from shoestring.errors import DamagedArtifact, FileError, nearest, shown

if TYPE_CHECKING:
    from shoestring.tokenizer import Tokenizer

SIDES = ("train", "heldout")
DOCUMENTS = "documents.parquet"


@dataclass(frozen=True, slots=True)
class Tokens:
    """An opened tokens artifact; nothing of it is in memory until it is read."""

    path: Path
    train: np.ndarray
    heldout: np.ndarray
    train_offsets: np.ndarray
    heldout_offsets: np.ndarray
    vocabulary: int
    about: dict[str, Any]

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens that each document begins with, by the rule of the tokenizer that made them; usually none."""
        return tuple(self.about.get("prefix", ()))

    def documents(self, columns: tuple[str, ...]) -> pa.Table:
        """Columns of the training documents, in the order of `train_offsets`.

        Raises:
            FileError: these tokens were written before documents were, or have no such column.
        """
        file = self.path / DOCUMENTS
        if not file.is_file():
            raise FileError(f"{self.path}: tokens of an earlier version, without {DOCUMENTS}; tokenize the corpus again")
        there = pq.read_schema(file).names
        for column in columns:
            if column not in there:
                raise FileError(f"{file}: no {shown(column)}; {nearest(column, there)}; scores come from a step before tokenize")
        return pq.read_table(file, columns=list(columns), filters=[("side", "==", "train")])

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made them."""
        from shoestring.tokenizer import Tokenizer

        return Tokenizer.open(self.path)


def open_tokens(path: Path | str) -> Tokens:
    """Open a tokens artifact.

    Raises:
        FileError: there is none at `path`.
        DamagedArtifact: a file is missing, has another size, or disagrees with its index.
    """
    path = Path(path)
    found = artifact.manifest(path)
    if found.kind != "tokens":
        raise FileError(f"{path}: holds {found.kind}, not tokens; name a tokens artifact")
    dtype = np.dtype(found.about["dtype"]).newbyteorder("<")
    train, heldout = (_map(path / f"{side}.bin", dtype) for side in SIDES)
    train_offsets, heldout_offsets = (np.load(path / f"{side}.offsets.npy", allow_pickle=False) for side in SIDES)
    for side, stream, index in zip(SIDES, (train, heldout), (train_offsets, heldout_offsets), strict=True):
        if int(index[-1]) != len(stream):
            raise DamagedArtifact(path / f"{side}.bin", f"{len(stream)} tokens, but its index ends at {int(index[-1])}")
    return Tokens(path, train, heldout, train_offsets, heldout_offsets, found.about["vocabulary"], found.about)


class Writer:
    """Appends documents to one side of a tokens artifact; holds a number per document, not the tokens."""

    def __init__(self, folder: Path, side: str, dtype: np.dtype, end: int) -> None:
        self.folder, self.side, self.dtype, self.end = folder, side, dtype, end
        self.offsets = [0]
        self.bytes = 0
        self._stream = (folder / f"{side}.bin").open("wb")

    def add(self, documents: Iterable[list[int]], sizes: Iterable[int]) -> tuple[list[int], list[int]]:
        """Write documents, and count their bytes of text; where each starts, and its tokens."""
        parts: list[np.ndarray] = []
        first = len(self.offsets) - 1
        for tokens in documents:
            tokens.append(self.end)
            parts.append(np.array(tokens, dtype=self.dtype))
            self.offsets.append(self.offsets[-1] + len(tokens))
        if parts:
            self._stream.write(np.concatenate(parts).tobytes())
        self.bytes += sum(sizes)
        return self.offsets[first:-1], [len(part) for part in parts]

    def close(self) -> None:
        """Write the index."""
        self._stream.close()
        np.save(self.folder / f"{self.side}.offsets.npy", np.array(self.offsets, dtype="<i8"), allow_pickle=False)


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    # An empty file can't be mapped.
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)
