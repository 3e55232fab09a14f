"""Feed-forwards, what each token goes through by itself: SwiGLU (arXiv 2002.05202) and GELU (arXiv 1606.08415)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from shoestring.architecture.part import Part
from shoestring.architecture.settings import Derived
from shoestring.architecture.slot import Slot, matrix
from shoestring.choice import Choice, Table


class _FeedForward(Part):
    gates: ClassVar[int] = 0
    """Matrices beside `up` that decide how much of it passes."""

    inner: Derived = 0
    """Neurons."""

    def resolved(self, width: int) -> Self:
        return self if self.inner else self.model_copy(update={"inner": self.usual(width)})

    @classmethod
    def usual(cls, width: int) -> int:
        """Neurons for a width when nothing says."""
        return 4 * width

    def elements(self, width: int) -> float:
        return 3.0 * width + (self.gates + 3.0) * self.inner

    def saved_bytes(self, width: int, halved: bool) -> float:
        """Counted from PyTorch's saved tensors."""
        return super().saved_bytes(width, halved) + (2.0 if halved else 4.0) * (2 + 2 * self.gates) * self.inner

    @classmethod
    def of(cls, flat: Any) -> Self:
        return cls(inner=flat.feed_forward_width)

    def flat(self) -> dict[str, Any]:
        return {"feed_forward": self.kind, "feed_forward_width": self.inner}


class SwiGLU(_FeedForward):
    """down(silu(gate(x)) * up(x)): three matrices; the gate decides which neurons speak."""

    kind: Literal["swiglu"] = "swiglu"
    gates: ClassVar[int] = 1

    @classmethod
    def usual(cls, width: int) -> int:
        """8/3 of the width, as many weights as two matrices of 4 have, rounded up to 64."""
        return -(-width * 8 // 3 // 64) * 64

    def slots(self, width: int) -> tuple[Slot, ...]:
        return (
            matrix("gate", self.inner, width, ("inner", "width")),
            matrix("up", self.inner, width, ("inner", "width")),
            matrix("down", width, self.inner, ("width", "inner"), "hidden", fed_by="up", draw="into_stream"),
        )


class GELU(_FeedForward):
    """down(gelu(up(x))): two matrices, as in GPT-2."""

    kind: Literal["gelu"] = "gelu"

    def slots(self, width: int) -> tuple[Slot, ...]:
        return (
            matrix("up", self.inner, width, ("inner", "width")),
            matrix("down", width, self.inner, ("width", "inner"), "hidden", draw="into_stream"),
        )


FEED_FORWARDS: Table[type[Any]] = Table(
    "ModelConfig.feed_forward",
    Choice("swiglu", SwiGLU, "three matrices, one of them a gate", "", "2002.05202"),
    Choice("gelu", GELU, "two matrices, as in GPT-2", "", "1606.08415"),
)
