"""How a matrix can be kept: one file a form, one name in the table. A form's tensors are its file, its shards and what a
compression's restart point keeps; nothing else of it is stored but its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from shoestring.choice import Choice, Table
from shoestring.model.forms.matrix import Dense, Kept, Matrix, Product, to_dense
from shoestring.model.forms.packed import PackedLinear
from shoestring.model.forms.pruned import PRUNED, nonzero

SMALLER = ("memory", "storage")

FORMS: Table[Callable[..., Any]] = Table(
    "Matrix.form",
    Choice("dense", Dense.built, "weights as they are", ""),
    Choice("packed", PackedLinear.built, "weights of 2 to 8 bits in memory and on disk", "Q1", saves=SMALLER),
)
"""Tensors and settings -> the matrix, by form."""


def parts(matrix: Matrix) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """A matrix as data: its form, its settings, its tensors."""
    assert isinstance(matrix, nn.Module)
    return matrix.form, matrix.settings(), {name: tensor.detach() for name, tensor in matrix.state_dict().items()}


def build(form: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """The matrix of a form.

    Raises:
        ValueError: tensors that don't belong together.
    """
    return FORMS[form](dict(tensors), **settings)


def put(model: nn.Module, name: str, module: Any) -> None:
    """Set the submodule of a dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


__all__ = [
    "FORMS",
    "PRUNED",
    "Dense",
    "Kept",
    "Matrix",
    "PackedLinear",
    "Product",
    "build",
    "nonzero",
    "parts",
    "put",
    "to_dense",
]
