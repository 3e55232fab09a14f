"""Norms of the residual stream: RMSNorm (arXiv 1910.07467) and LayerNorm without bias (arXiv 1607.06450)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from shoestring.architecture.settings import Positive, Settings
from shoestring.architecture.slot import Axis, Slot
from shoestring.choice import Choice, Table


class _Norm(Settings):
    kind: str = ""
    epsilon: Positive = 1e-5
    """Added to the mean square, or to the variance."""

    def slot(self, name: str, width: int, axis: Axis = "width") -> Slot:
        """Its scales."""
        return Slot(name, (width,), (axis,), draw="ones")

    @classmethod
    def of(cls, flat: Any) -> Self:
        """As the flat spelling of a model says it."""
        return cls(epsilon=flat.norm_epsilon)

    def flat(self) -> dict[str, Any]:
        """The settings of the flat spelling that say it."""
        return {"norm": self.kind, "norm_epsilon": self.epsilon}


class RMSNorm(_Norm):
    """x / rms(x) * weight."""

    kind: Literal["rmsnorm"] = "rmsnorm"


class LayerNorm(_Norm):
    """(x - mean(x)) / std(x) * weight."""

    kind: Literal["layernorm"] = "layernorm"


Norm = Annotated[RMSNorm | LayerNorm, Field(discriminator="kind")]
NORMS: Table[type[RMSNorm] | type[LayerNorm]] = Table(
    "ModelConfig.norm",
    Choice("rmsnorm", RMSNorm, "divides by the root mean square", "", "1910.07467", ("computation",)),
    Choice("layernorm", LayerNorm, "subtracts the mean, divides by the deviation", "", "1607.06450"),
)
