"""Whether the model's code is compiled while it trains.

Regional compilation gives torch.compile one region at a time, the embedding, each block and the last norm, so that twelve equal
blocks compile once; the loop, its callbacks and the loss stay plain Python. Element-wise work of a region becomes one kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from shoestring.choice import Choice, OneOf, Table

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def regional(model: nn.Module) -> Iterator[None]:
    """The embedding, each block and the last norm compiled for fixed shapes while the context is open."""
    import torch

    regions = [*getattr(model, "blocks", []), *filter(None, [getattr(model, "final_norm", None)])]
    for region in regions:
        region.compile(dynamic=False)
    embed = getattr(model, "embed", None)
    if embed is not None:
        model.embed = torch.compile(embed, dynamic=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        for region in regions:
            region._compiled_call_impl = None  # what Module.compile sets; PyTorch has no call that takes it back
        if embed is not None:
            del model.embed


NONE = Choice("none", nullcontext, "the model runs as it is written", "")
REGIONAL = Choice("regional", regional, "each block compiled once by torch.compile", row="X6", saves=("computation", "memory"))
COMPILES: Table[Callable[[nn.Module], AbstractContextManager[Any]]] = Table("Training.compile", NONE, REGIONAL)
"""Each makes of a model the context in which it trains."""

Compile = Annotated[str, OneOf(COMPILES)]
