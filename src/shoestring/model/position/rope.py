"""Rotary positions (RoFormer, arXiv 2104.09864): queries and keys turn by an angle that grows with position, so that their
product depends on the distance alone.

The two halves of a head are paired (element i with i + D/2), as in Hugging Face checkpoints.

B batch, T tokens, H heads, D head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from shoestring.model.config import ModelConfig, RopeScaling


def frequencies(config: ModelConfig) -> Tensor:
    """Radians per token of each pair, float32 (D/2,)."""
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.float32, device="cpu") / config.head_size
    turns = 1.0 / config.rope_base**exponents
    return turns if config.rope_scaling is None else _stretched(turns, config.rope_scaling)


def table(config: ModelConfig, length: int) -> Tensor:
    """Cosines and sines of positions 0 to length-1, float32 (length, 2, D/2), on the CPU.

    Never on the meta device, where `arange` alone would import PyTorch's compiler: seconds of every loading.
    """
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), frequencies(config))
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def rotate(x_BHTD: Tensor, turn_BT2D: Tensor) -> Tensor:
    """Turn each head by its position; `turn_BT2D` is `table` read at the positions, (B or 1, T, 2, D/2)."""
    cos, sin = turn_BT2D.unsqueeze(1).unbind(dim=3)
    first, second = x_BHTD.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_BHTD.dtype)


def _stretched(turns: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3: waves longer than the old context are slowed by the factor, short ones kept, those between blended."""
    waves = scaling.original_context * turns / (2 * math.pi)
    span = scaling.high_frequency - scaling.low_frequency
    keep = ((waves - scaling.low_frequency) / span).clamp(0, 1)
    return turns * keep + turns / scaling.factor * (1 - keep)
