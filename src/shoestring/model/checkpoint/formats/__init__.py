"""Formats of checkpoints whose matrices are not all plain, one file each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shoestring.choice import Choice, Table
from shoestring.errors import SettingError
from shoestring.model.checkpoint.families.family import Reading
from shoestring.model.checkpoint.formats.compressed_tensors import COMPRESSED_TENSORS
from shoestring.model.checkpoint.formats.format import Format, Leaves
from shoestring.model.checkpoint.formats.native import NATIVE
from shoestring.model.forms import Matrix

FORMATS: Table[Format] = Table(
    "save.format",
    Choice("compressed-tensors", COMPRESSED_TENSORS, "integers of 2 to 8 bits, as llm-compressor writes and vLLM reads", "Q1"),
    Choice("native", NATIVE, "every form as it is; only shoestring opens it", ""),
)
"""In the order in which they are asked whether they hold a model's matrices; the last one holds all."""


def reading_format(record: Mapping[str, Any], file: Path) -> tuple[Format, Reading] | None:
    """The format of a `config.json` and its part of it, None when all matrices are plain.

    Raises:
        FileError: a `quant_method` that is not read.
    """
    key = next((key for key in ("quantization_config", "compression_config") if record.get(key)), None)
    if key is None:
        return None
    config = Reading(record, file).inside(key)
    method = config.get("quant_method", "compressed-tensors")
    found = next((each for each in FORMATS.values() if each.method == method), None)
    if found is None:
        methods = ", ".join(each.method for each in FORMATS.values())
        config.refuse("quant_method", method, f"shoestring reads {methods}")
    return found, config


def writing_format(matrices: Iterable[Matrix], wanted: str | None) -> Format:
    """The format that is wanted, or the first that holds all matrices.

    Raises:
        SettingError: the one that is wanted does not exist, or can't hold a matrix.
    """
    matrices = list(matrices)
    if wanted is None:
        return next(each for each in FORMATS.values() if not any(each.why_not(matrix) for matrix in matrices))
    found = FORMATS.choose(wanted, "format")
    if why := next((why for matrix in matrices if (why := found.why_not(matrix))), ""):
        raise SettingError(f"format: {wanted} can't hold this model: {why}; leave format out, or name native")
    return found


__all__ = ["FORMATS", "Format", "Leaves", "reading_format", "writing_format"]
