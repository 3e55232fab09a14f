"""What a GGUF file holds, from its beginning: metadata and the place of each tensor; every length is checked against the file.

The layout: magic, version, counts; key-values (a text, a kind, a value); tensors (a text, dimensions, a kind, an offset);
padding; data. Texts are UTF-8 behind their length, all numbers little-endian, sizes 64 bits wide since version 2.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from shoestring.errors import DamagedArtifact, FileError, file_error, shown
from shoestring.files import regular

VERSIONS = (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letter of each kind of number."""
TEXT, LIST = 8, 9
DIMENSIONS, DEPTH = 4, 4


@dataclass(frozen=True, slots=True)
class Blocks:
    """A tensor in the file.

    Attributes:
        kind: ggml's number of the form it is stored in.
        shape: slowest dimension first, as PyTorch has it.
        start: of its data, from the file's beginning.
        nbytes: of its data.
    """

    kind: int
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """Metadata by key, tensors by name."""

    file: Path
    metadata: dict[str, Any]
    tensors: dict[str, Blocks]


def read_header(file: Path) -> Header:
    """The header of a file; read once for configuration, weights and tokenizer.

    Raises:
        FileError: not GGUF, or of a version or form that is not read.
        DamagedArtifact: cut short, or lengths and offsets beyond its end.
    """
    found = regular(file).stat()
    return _read(file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1)
def _read(file: Path, size: int, changed: int) -> Header:
    """Size and date tell another file."""
    try:
        with file.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise FileError(f"{file}: not a GGUF file")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(file, data).header()
    except OSError as error:
        raise file_error(file, error) from error


class _Reader:
    """A place in the file that moves on; nothing is taken that is not there."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self.file, self.data, self.at = file, data, 4

    def header(self) -> Header:
        version = self.number("I")
        if version not in VERSIONS:
            raise FileError(f"{self.file}: GGUF version {version} (or another byte order) is not read; allowed: 2, 3")
        tensors, entries = self.number("Q"), self.number("Q")
        metadata: dict[str, Any] = {}
        for _ in range(self.fitting(entries, 13, "key-values")):
            key = self.text()
            if key in metadata:
                self.damaged(f"the key {shown(key)} stands twice")
            metadata[key] = self.value(self.number("I"))
        infos = [self.tensor() for _ in range(self.fitting(tensors, 28, "tensors"))]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
            self.damaged(f"general.alignment is {shown(alignment)}")
        start = -(-self.at // alignment) * alignment
        return Header(self.file, metadata, self.placed(infos, start))

    def placed(self, infos: list[tuple[str, tuple[int, ...], int, int]], start: int) -> dict[str, Blocks]:
        """Tensors with the bytes that each takes; together they can't take more than the file has."""
        found: dict[str, Blocks] = {}
        for name, shape, kind, offset in infos:
            if name in found:
                self.damaged(f"the tensor {shown(name)} stands twice")
            block, width = _block(kind, self.file, name)
            if shape[-1] % block:
                self.damaged(f"{shown(name)} has rows of {shape[-1]}, stored in blocks of {block}")
            found[name] = Blocks(kind, shape, start + offset, math.prod(shape) // block * width)
            if start + offset + found[name].nbytes > len(self.data):
                self.damaged(f"{shown(name)} lies beyond the end of the file")
        if sum(blocks.nbytes for blocks in found.values()) > len(self.data):
            self.damaged("its tensors overlap")
        return found

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, kind and offset."""
        name, dimensions = self.text(), self.number("I")
        if not 1 <= dimensions <= DIMENSIONS:
            self.damaged(f"{shown(name)} has {dimensions} dimensions")
        shape = tuple(reversed([self.number("Q") for _ in range(dimensions)]))
        if 0 in shape:
            self.damaged(f"{shown(name)} has the shape {shape}")
        return name, shape, self.number("I"), self.number("Q")

    def value(self, kind: int, depth: int = 0) -> Any:
        """A value of a kind, lists within lists up to a depth."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == TEXT:
            return self.text()
        if kind != LIST or depth == DEPTH:
            self.damaged(f"a value of the unknown kind {kind}, or nested too deep")
        inner, count = self.number("I"), self.number("Q")
        if inner in NUMBERS:
            width = struct.calcsize(f"<{NUMBERS[inner]}")
            return list(struct.unpack(f"<{self.fitting(count, width, 'entries')}{NUMBERS[inner]}", self.take(count * width)))
        return [self.value(inner, depth + 1) for _ in range(self.fitting(count, 8, "entries"))]

    def number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode("utf-8")
        except UnicodeDecodeError:
            self.damaged(f"a text before byte {self.at} is not UTF-8")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            self.damaged(f"{count:,} bytes are wanted at byte {self.at:,}, and the file has {len(self.data):,}")
        self.at += count
        return self.data[self.at - count : self.at]

    def fitting(self, count: int, least: int, what: str) -> int:
        """A count of things of at least so many bytes, when the rest of the file can hold them."""
        if count * least > len(self.data) - self.at:
            self.damaged(f"{count:,} {what} at byte {self.at:,} do not fit into the file")
        return count

    def damaged(self, what: str) -> NoReturn:
        raise DamagedArtifact(self.file, f"not whole GGUF: {what}")


def _block(kind: int, file: Path, name: str) -> tuple[int, int]:
    """Values and bytes of one block of a form."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        return GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise FileError(f"{file}: {shown(name)} is stored in the form {kind}, which can't be read") from error
