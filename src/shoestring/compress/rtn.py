"""Round to nearest: each weight to the nearest point of its group's grid. No data, seconds of work, the bar for everything else.

A scale search ("mse") clips a few large weights where that makes the squared error of the group smaller.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from shoestring.compress import cost, grid
from shoestring.compress.base import Weights, config_widths, input_widths
from shoestring.compress.walk import put
from shoestring.measure import Hardware
from shoestring.model import ModelConfig, PackedLinear, Transformer
from shoestring.technique import Prediction, Sketch


def round_to_nearest(
    weight_OI: Tensor, bits: int, group: int, symmetric: bool = True, search: grid.Search = "none"
) -> tuple[Tensor, grid.Grid]:
    """Codes, int8 (O, I), and their grid, for a float32 matrix; `group` inputs share a scale."""
    found = grid.fit(weight_OI, bits, group, symmetric, search)
    return found.codes(weight_OI), found


def packed(codes_OI: Tensor, found: grid.Grid, linear: nn.Linear) -> PackedLinear:
    """The layer that takes a linear layer's place: packed codes, scales in bfloat16."""
    bias = None if linear.bias is None else linear.bias.data
    group = codes_OI.shape[1] // found.scales_OG.shape[1]
    return PackedLinear.from_parts(codes_OI, found.scales_OG.bfloat16(), found.zeros_OG, found.bits, group, bias)


def _group_size(size: int) -> int:
    if size != -1 and size < 1:
        raise ValueError("must be a number of inputs, or -1 for one group to each output")
    return size


Bits = Annotated[int, Field(ge=2, le=8)]
GroupSize = Annotated[int, AfterValidator(_group_size)]
"""Inputs that share a scale; -1: all, one group to each output."""


class RTN(Weights):
    """Round weights to the nearest of 2^bits steps between the extremes of their group; no calibration needed."""

    name: ClassVar[str] = "rtn"
    row: ClassVar[str] = "Q1"
    paper: ClassVar[str] = "2208.07339"
    saves: ClassVar[tuple[str, ...]] = ("memory", "storage")
    stores: ClassVar[torch.dtype | None] = torch.bfloat16

    bits: Bits = 4
    group_size: GroupSize = 128
    """Inputs that share a scale; -1: one group to each output."""
    symmetric: bool = True
    """False: each group has a zero point too."""
    search: grid.Search = "none"
    """mse: choose each group's scale by its squared error."""

    def check(self, model: Transformer) -> None:
        super().check(model)
        grid.check_groups(input_widths(model), self.group_size, "rtn.group_size")

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        if isinstance(sketch.model, ModelConfig):
            grid.check_groups(config_widths(sketch.model), self.group_size, "rtn.group_size")
        return super().predict(sketch, hardware)

    def _one(self, model: Transformer, name: str, linear: nn.Linear) -> dict[str, Any]:
        weight_OI = linear.weight.float()
        group = grid.group_for(weight_OI.shape[1], self.group_size)
        codes_OI, found = round_to_nearest(weight_OI, self.bits, group, self.symmetric, self.search)
        layer = packed(codes_OI, found, linear)
        put(model, name, layer)
        return {"weights": codes_OI.numel(), "zeros": found.zeros_in(codes_OI)}

    def _bits(self) -> cost.Bits:
        return cost.Bits(self.bits, self.group_size, self.symmetric)

    def _passes(self) -> float:
        return 2.0 + (cost.SEARCH_PASSES if self.search == "mse" else 0.0)
