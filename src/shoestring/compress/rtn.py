"""Round to nearest: each weight to the nearest point of its group's grid. No data, seconds of work, the bar for everything else.

    scale = -extreme / 2^(b-1);  code = round(w / scale) in [-2^(b-1), 2^(b-1) - 1];  weight = code * scale

for b bits, `extreme` the weight of largest size in a group of neighbouring inputs, with its sign; without `symmetric` a code
for zero moves too, so that the grid reaches from the least weight to the largest. A scale search ("mse") clips a few large
weights where that makes the squared error of the group smaller. Decoding reads the weights once a token, so a quarter of the
bytes is up to four times the speed where memory is the limit.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from shoestring.compress import cost, grid
from shoestring.compress.base import Weights
from shoestring.compress.quantizer import Quantizer, packed_solution
from shoestring.compress.solution import Solution


def round_to_nearest(
    weight_OI: Tensor,
    bits: int,
    group: int,
    symmetric: bool = True,
    search: grid.Search = "none",
    signs: grid.Signs = "signed",
) -> tuple[Tensor, grid.Grid]:
    """Codes, int8 (O, I), and their grid, for a float32 matrix; `group` inputs share a scale."""
    found = grid.fit(weight_OI, bits, group, symmetric, search, signs=signs)
    return found.codes(weight_OI), found


class RTN(Quantizer, Weights):
    """Round weights to the nearest of 2^bits steps between the extremes of their group; no calibration needed."""

    name: ClassVar[str] = "rtn"
    row: ClassVar[str] = "Q1"
    paper: ClassVar[str] = "2208.07339"
    saves: ClassVar[tuple[str, ...]] = ("memory", "storage")

    search: grid.Search = "none"
    """mse: choose each group's scale by its squared error."""

    def _solve(self, weight_OI: Tensor) -> Solution:
        weight_OI = weight_OI.float()
        group = grid.group_for(weight_OI.shape[1], self.group_size)
        codes_OI, found = round_to_nearest(weight_OI, self.bits, group, self.symmetric, self.search, self.scales)
        return packed_solution(codes_OI, found, {})

    def _passes(self) -> float:
        return 2.0 + (cost.SEARCH_PASSES if self.search == "mse" else 0.0)
