"""What a format is: how matrices that are not plain stand in a checkpoint, beside what says so in its `config.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from shoestring.model.checkpoint.families.family import Reading
from shoestring.model.forms import Matrix

Leaves = dict[str, dict[str, Tensor]]
"""Tensors of modules by the modules' names in the checkpoint, then by the last part of their own."""


@dataclass(frozen=True, slots=True)
class Format:
    """One value of `quant_method`.

    Attributes:
        method: that value.
        why_not: why a matrix can't be written so, "" when it can.
        leaves: a matrix -> its tensors by the last part of their names.
        config: matrices by their name in the checkpoint, and the names of those that stay plain -> `quantization_config`.
        read: `quantization_config`, tensors of all modules, the checkpoint -> the matrices that are not plain; their modules
            are taken out of the tensors.
        bits: `quantization_config` -> the widths of integers that it names.
    """

    method: str
    why_not: Callable[[Matrix], str]
    leaves: Callable[[Matrix], dict[str, Tensor]]
    config: Callable[[Mapping[str, Matrix], list[str]], dict[str, Any]]
    read: Callable[[Reading, Leaves, Path], dict[str, Matrix]]
    bits: Callable[[Reading], frozenset[int]]
