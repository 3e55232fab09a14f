"""Rotary positions (RoFormer, arXiv 2104.09864): queries and keys turn by an angle that grows with position, so that their
product depends on the distance alone.

The two halves of a head are paired (element i with i + D/2), as in Hugging Face checkpoints.

B batch, T tokens, H heads, D elements that turn.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn

from shoestring.architecture import Rope, RopeScaling

FIRST = 8192
"""Positions of a table to begin with; it grows when a sequence needs more, so a context of millions costs nothing."""


def frequencies(rope: Rope, size: int) -> Tensor:
    """Radians per token of each pair of `size` elements, float32 (D/2,)."""
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device="cpu") / size
    slow = 1.0 / rope.base**exponents
    return slow if rope.scaling is None else _stretched(slow, rope.scaling)


def table(rope: Rope, size: int, length: int) -> Tensor:
    """Cosines and sines of positions 0 to length-1, float32 (length, 2, D/2), on the CPU.

    Never on the meta device, where `arange` alone would import PyTorch's compiler: seconds of every loading.
    """
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), frequencies(rope, size))
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def rotate(x_BHTD: Tensor, turn_BT2D: Tensor) -> Tensor:
    """Turn each head by its position; `turn_BT2D` is `table` read at the positions, (B or 1, T, 2, D/2)."""
    cos, sin = turn_BT2D.unsqueeze(1).unbind(dim=3)
    first, second = x_BHTD.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_BHTD.dtype)


def key_of(rotary: tuple[Rope, int]) -> str:
    """What the table of a rope for so many elements is called in a model."""
    return re.sub(r"\W+", "_", f"{rotary[0]} {rotary[1]}")


class Rotary(nn.Module):
    """The table of one rope, as long as the longest sequence so far needed."""

    table: Tensor

    def __init__(self, rope: Rope, size: int, context: int) -> None:
        super().__init__()
        self.rope, self.size = rope, size
        self.register_buffer("table", table(rope, size, min(context, FIRST)), persistent=False)

    def upto(self, length: int) -> Tensor:
        """At least so many positions; made longer when a sequence needs it, and again when the model was recast: it stays
        float32.
        """
        if length > self.table.shape[0] or self.table.dtype != torch.float32:
            self.table = table(self.rope, self.size, max(length, self.table.shape[0])).to(self.table.device)
        return self.table


def _stretched(slow: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3: waves longer than the old context are slowed by the factor, short ones kept, those between blended."""
    waves = scaling.original_context * slow / (2 * math.pi)
    span = scaling.high_frequency - scaling.low_frequency
    keep = ((waves - scaling.low_frequency) / span).clamp(0, 1)
    return slow * keep + slow / scaling.factor * (1 - keep)
