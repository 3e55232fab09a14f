"""Magnitude pruning: the smallest weights become zero. Needs no data; the bar for pruning (Han et al., arXiv 1506.02626).

    score_oi = |W_oi|        the share `sparsity` of lowest scores becomes zero, in each row or in each matrix

It takes every input to be of one size. In language models a few are a hundred times larger than others, and small weights on
them matter: `wanda` counts them in. A pattern n:m keeps n of each m neighbouring inputs, the form that sparse tensor units
multiply.

O outputs, I inputs.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from shoestring.compress import cost, prune
from shoestring.compress.base import Weights, input_widths
from shoestring.compress.solution import Solution
from shoestring.model import Transformer
from shoestring.technique import Sketch


class Magnitude(Weights):
    """Set the smallest weights to zero, in each matrix or in each of its rows."""

    name: ClassVar[str] = "magnitude"
    row: ClassVar[str] = "I1, I2"
    paper: ClassVar[str] = "1506.02626"
    saves: ClassVar[tuple[str, ...]] = ("storage",)

    sparsity: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the weights that become zero; a pattern n:m has its own, 1 - n/m."""
    pattern: prune.Pattern = "unstructured"
    """n:m keeps n of every m neighbouring inputs."""
    scope: prune.Scope = "layer"
    """Within what weights compete: one matrix, or a row (an output) of it; a pattern n:m competes within its m."""

    @model_validator(mode="before")
    @classmethod
    def _own_sparsity(cls, settings: Any) -> Any:
        return prune.own_sparsity(settings)

    @model_validator(mode="after")
    def _agree(self) -> Magnitude:
        prune.check_pattern(self.sparsity, self.pattern)
        return self

    def check(self, model: Transformer) -> None:
        super().check(model)
        prune.check_widths(input_widths(model.config), self.pattern, "magnitude.pattern")

    def _solve(self, weight_OI: Tensor) -> Solution:
        return prune.solution(weight_OI, prune.keep(weight_OI.float().abs(), self.sparsity, self.pattern, self.scope))

    def _sparsity(self, sketch: Sketch) -> float:
        return max(self.sparsity, sketch.sparsity)

    def _passes(self) -> float:
        return cost.SCORE_PASSES
