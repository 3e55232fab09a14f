"""Families of checkpoints, one file each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoestring.architecture import ModelConfig
from shoestring.errors import FileError, nearest, shown
from shoestring.model.checkpoint.families import gpt2, llama, native, qwen2, qwen3
from shoestring.model.checkpoint.families.family import Family, Reading, holds

FAMILIES: tuple[Family, ...] = (llama.FAMILY, qwen2.FAMILY, qwen3.FAMILY, gpt2.FAMILY, native.FAMILY)
"""In the order in which they are asked whether they hold a configuration; the last one holds all."""


def reading_family(record: dict[str, Any], file: Path) -> Family:
    """The family that reads a `config.json`.

    Raises:
        FileError: names the architecture and those that are read.
    """
    found = record.get("architectures") or ["(none)"]
    if not isinstance(found, list) or not isinstance(found[0], str):
        raise FileError(f"{file}: architectures is {shown(found)}; it must be a list of names")
    for family in FAMILIES:
        if found[0] in family.architectures:
            return family
    known = [name for family in FAMILIES for name in family.architectures]
    name = shown(found[0], quote=False)
    raise FileError(f"{file}: architecture {name} is not one that shoestring reads; {nearest(name, known)}")


def writing_family(config: ModelConfig, packed: bool) -> Family:
    """The first family that can express a configuration."""
    return next(family for family in FAMILIES if holds(family, config, packed))


__all__ = ["FAMILIES", "Family", "Reading", "reading_family", "writing_family"]
