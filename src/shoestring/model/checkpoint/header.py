"""What a safetensors file holds, from its header alone: eight bytes of length, then JSON; no tensor is read or allocated."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shoestring.errors import DamagedArtifact, FileError, file_error, shown
from shoestring.files import parse_json, regular

LONGEST = 32 << 20
"""Bytes of a header: 300,000 tensors. The safetensors library takes 100 MB, which as Python objects are gigabytes."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor on disk."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.elements * self.dtype.itemsize


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file by name.

    Raises:
        FileError: it is not a plain file, or a tensor has a dtype that is not read.
        DamagedArtifact: cut short, or a header that contradicts itself or the file's size.
    """
    size = regular(file).stat().st_size
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(LONGEST, size - 8):
                raise DamagedArtifact(file, "not whole safetensors: its header does not fit into the file")
            record = parse_json(stream.read(length), f"{file}: its header", "fetch it again")
    except OSError as error:
        raise file_error(file, error) from error
    if not isinstance(record, dict):
        raise DamagedArtifact(file, "not whole safetensors: its header is no JSON object")
    record.pop("__metadata__", None)
    return {name: _stored(file, name, entry, size - 8 - length) for name, entry in record.items()}


def _stored(file: Path, name: str, entry: Any, data: int) -> Stored:
    entry = entry if isinstance(entry, dict) else {}
    kind, shape, place = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not (_whole_numbers(shape) and _whole_numbers(place) and len(place) == 2 and isinstance(kind, str)):
        raise DamagedArtifact(file, f"its header describes {shown(name)} as {shown(entry)}")
    if kind not in DTYPES:
        raise FileError(f"{file}: {shown(name)} is stored as {shown(kind)}; shoestring reads {', '.join(DTYPES)}")
    found = Stored(file, DTYPES[kind], tuple(shape))
    first, last = place
    if last > data or last - first != found.nbytes:
        raise DamagedArtifact(file, f"{shown(name)} of shape {shown(shape)} does not fit bytes {shown(first)} to {shown(last)}")
    return found


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 1 << 48 for number in value)
