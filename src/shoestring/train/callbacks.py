"""What may be hung into a training step from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.model.forms import PRUNED, nonzero
from shoestring.train.parallel.layout import like


class Callback:
    """Two moments of each optimizer step, and what must outlive a kill; nothing unless overridden."""

    def before_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Gradients of the whole batch are there; they are not clipped yet and the weights have not moved."""

    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """The weights have moved; gradients are still there."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values by name, for a restart point."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""


class KeepZeros(Callback):
    """Weights that are zero now stay zero: a pruned model keeps its sparsity while it learns.

    Matrices with more than 1 % zeros count as pruned. Their masks are taken when this is made, so make it before training.
    """

    def __init__(self, model: nn.Module, share: float = PRUNED) -> None:
        found = {name: nonzero(weight, share) for name, weight in _matrices(model)}
        self.masks: dict[str, Tensor] = {name: kept for name, kept in found.items() if kept is not None}

    def before_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Pruned weights get no gradient, so they count neither in the norm nor in the optimizer's moments."""
        for name, weight in _matrices(model):
            if name in self.masks and weight.grad is not None:
                weight.grad.mul_(like(self.masks[name], weight))

    @torch.no_grad()
    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Whatever the optimizer did, pruned weights are zero."""
        for name, weight in _matrices(model):
            if name in self.masks:
                weight.masked_fill_(like(~self.masks[name], weight), 0.0)


def _matrices(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module.weight
