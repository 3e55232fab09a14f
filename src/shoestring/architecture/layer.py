"""A layer: tokens mix, then each thinks for itself; both add to the residual stream."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import SerializeAsAny

from shoestring.architecture.attention import ATTENTION
from shoestring.architecture.feedforward import FEED_FORWARDS, SwiGLU
from shoestring.architecture.norm import Norm, RMSNorm
from shoestring.architecture.part import Part, one_of
from shoestring.architecture.settings import Settings
from shoestring.architecture.slot import Slot
from shoestring.choice import Table

MIXERS: Table[type[Any]] = Table("ModelConfig.mixer", ATTENTION)


class Layer(Settings):
    """The settings of one layer; layers of a model may differ."""

    mixer: Annotated[SerializeAsAny[Part], one_of(MIXERS)]
    """What mixes tokens."""
    feed_forward: Annotated[SerializeAsAny[Part], one_of(FEED_FORWARDS)] | None = SwiGLU()
    """None: the layer only mixes."""
    norm: Norm = RMSNorm()
    """Of each part."""
    norms: Literal["before", "after", "both"] = "before"
    """Where they stand: before each part (arXiv 2002.04745), after it (OLMo 2), or both (Gemma 2)."""
    parallel: bool = False
    """Both parts read the layer's input, and their outputs are added together (GPT-NeoX, arXiv 2204.06745)."""

    @property
    def parts(self) -> dict[str, Part]:
        """Its parts by the name of their modules."""
        return {"mixer": self.mixer} | ({} if self.feed_forward is None else {"feed_forward": self.feed_forward})

    def resolved(self, width: int) -> Self:
        """The same with those settings filled in that follow from the width of the stream."""
        parts = {name: part.resolved(width) for name, part in self.parts.items()}
        same = all(parts[name] is part for name, part in self.parts.items())
        return self if same else self.model_copy(update=parts)

    def slots(self, width: int) -> tuple[Slot, ...]:
        """Its parameters in order of computation, named from the block on."""
        return _slots(self, width)


@lru_cache(maxsize=4096)
def _slots(layer: Layer, width: int) -> tuple[Slot, ...]:
    found: list[Slot] = []
    for name, part in layer.parts.items():
        first = layer.norms != "after"
        if first:
            found.append(layer.norm.slot(f"{name}_norm", width))
        found += [slot.inside(name, f"{name}_norm" if first else "") for slot in part.slots(width)]
        if layer.norms != "before":
            found.append(layer.norm.slot(f"{name}_norm_after", width))
    return tuple(found)
