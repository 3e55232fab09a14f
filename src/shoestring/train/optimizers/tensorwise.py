"""An optimizer of one's own in one function: what is done to each tensor in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, dict[str, Any], dict[str, Any]], None]
"""Changes a weight in place, from its gradient, its own state (empty at first) and its group's settings."""


class Tensorwise(torch.optim.Optimizer):
    """Applies a rule to every tensor that has a gradient.

    Args:
        groups: as PyTorch's optimizers take them.
        defaults: settings of the groups that don't say otherwise; `lr` must be among them.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], rule: Rule, **defaults: Any) -> None:
        super().__init__(groups, defaults)
        self.rule = rule

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for all tensors."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.rule(weight, weight.grad, self.state[weight], group)
