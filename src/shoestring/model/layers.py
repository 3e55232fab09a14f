"""Modules from slots: a matrix, a norm. What a module is made of is said by its part's slots, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.architecture import LayerNorm, RMSNorm, Slot
from shoestring.model.forms import Dense


def named(slots: Iterable[Slot]) -> dict[str, Slot]:
    """Slots by name."""
    return {slot.name: slot for slot in slots}


def dense(slot: Slot) -> Dense:
    """A plain matrix."""
    return Dense(slot.inputs, slot.outputs, bias=slot.bias)


def embedding(slot: Slot) -> nn.Embedding:
    """A vector for each of its rows."""
    return nn.Embedding(slot.shape[0], slot.shape[1])


class RootMeanSquare(nn.Module):
    """x / rms(x) * weight, over the last dimension, in float32 whatever comes in."""

    def __init__(self, slot: Slot, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(slot.shape))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.epsilon).to(x.dtype)


class Standardised(nn.Module):
    """(x - mean(x)) / std(x) * weight, over the last dimension, in float32 whatever comes in."""

    def __init__(self, slot: Slot, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(slot.shape))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight.float(), None, self.epsilon).to(x.dtype)


NORMS = {RMSNorm: RootMeanSquare, LayerNorm: Standardised}
"""The module of each norm."""


def norm(settings: RMSNorm | LayerNorm | None, slot: Slot | None) -> Any:
    """A norm; None where there is none."""
    return None if settings is None or slot is None else NORMS[type(settings)](slot, settings.epsilon)
