"""Wanda (arXiv 2306.11695): prune by what a weight contributes, |w| times the norm of its input, within each output.

    score_oi = |W_oi| * ||x_i||_2        the lowest scores of each row become zero; nothing else changes

A language model has inputs of very different size, and a small weight on a large one moves the output more than a large weight
on a small one. The norms are seen in one pass over some calibration text, block after block, each fed by the pruned ones
before it.

O outputs, I inputs, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from shoestring.compress import cost, prune
from shoestring.compress.base import Calibrated, Note, input_widths
from shoestring.compress.solution import Group, Solution
from shoestring.compress.walk import squares
from shoestring.measure import Hardware
from shoestring.model import Transformer
from shoestring.technique import Prediction, Sketch


def scores(weight_OI: Tensor, squares_I: Tensor) -> Tensor:
    """What each weight contributes, (O, I), given the sum of each input's squares."""
    return weight_OI.abs() * squares_I.sqrt()


@dataclass(frozen=True, slots=True)
class WandaMethod:
    """Wanda's part of the calibration walk."""

    sparsity: float
    pattern: prune.Pattern

    def statistic(self, x_NI: Tensor) -> Tensor:
        """Only the inputs' norms are needed."""
        return squares(x_NI)

    def solve(self, group: Group) -> dict[str, Solution]:
        """A mask for each matrix."""
        found = {}
        for name, weight_OI in group.weights.items():
            score_OI = scores(weight_OI, group.statistic)
            kept_OI = prune.keep(score_OI, self.sparsity, self.pattern)
            energy_OI = score_OI.square_()
            whole = energy_OI.sum().clamp_min(torch.finfo(torch.float32).tiny)
            lost = energy_OI.masked_fill_(kept_OI, 0.0).sum() / whole
            found[name] = prune.solution(weight_OI, kept_OI, error=lost.item(), error_of="inputs taken as uncorrelated")
        return found


class Wanda(Calibrated):
    """Prune the weights that contribute least: magnitude times the norm of the input, compared within each output."""

    name: ClassVar[str] = "wanda"
    row: ClassVar[str] = "I1, I2"
    paper: ClassVar[str] = "2306.11695"
    saves: ClassVar[tuple[str, ...]] = ("storage",)

    sparsity: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the weights that become zero; a pattern n:m has its own, 1 - n/m."""
    pattern: prune.Pattern = "unstructured"
    """n:m keeps n of every m neighbouring inputs."""

    @model_validator(mode="before")
    @classmethod
    def _own_sparsity(cls, settings: Any) -> Any:
        return prune.own_sparsity(settings)

    @model_validator(mode="after")
    def _agree(self) -> Wanda:
        prune.check_pattern(self.sparsity, self.pattern)
        return self

    def check(self, model: Transformer) -> None:
        super().check(model)
        prune.check_widths(input_widths(model.config), self.pattern, "wanda.pattern")

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """One pass over the calibration, no Gram matrices."""
        sparsity = max(self.sparsity, sketch.sparsity)
        return cost.predict_walk(
            sketch,
            hardware,
            self.samples,
            self.length,
            self.precision,
            None,
            sparsity,
            gram=False,
            passes=cost.SCORE_PASSES,
        )

    def _method(self, note: Note) -> WandaMethod:
        note(f"wanda: {prune.said(self.pattern)}")
        return WandaMethod(self.sparsity, self.pattern)

    def _grams(self) -> bool:
        return False
