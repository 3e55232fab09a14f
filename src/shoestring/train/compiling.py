"""Whether the model's code is compiled while it trains.

Regional compilation gives torch.compile one region at a time, the embedding, each block and the last norm, so that twelve equal
blocks compile once; the loop, its callbacks and the loss stay plain Python. Element-wise work of a region becomes one kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from shoestring.choice import Choice, OneOf, Table

if TYPE_CHECKING:
    from torch import nn


def none(model: nn.Module) -> None:
    """Leave the model as it is."""


def regional(model: nn.Module) -> None:
    """Compile the embedding, each block and the last norm for fixed shapes, when they are first called."""
    import torch

    if "embed" in vars(model):  # compiled before
        return
    for region in [*getattr(model, "blocks", []), *filter(None, [getattr(model, "final_norm", None)])]:
        region.compile(dynamic=False)
    embed = getattr(model, "embed", None)
    if embed is not None:
        model.embed = torch.compile(embed, dynamic=False)  # type: ignore[assignment]


NONE = Choice("none", none, "the model runs as it is written", "")
REGIONAL = Choice("regional", regional, "each block compiled once by torch.compile", row="X6", saves=("computation", "memory"))
COMPILES: Table[Callable[[nn.Module], None]] = Table("Training.compile", NONE, REGIONAL)
"""Each changes a model in place, for good."""

Compile = Annotated[str, OneOf(COMPILES)]
