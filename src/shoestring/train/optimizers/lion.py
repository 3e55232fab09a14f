"""Lion (Chen and others, arXiv 2302.06675, algorithm 2): every weight moves by the sign of a running mean of its gradient.

For a weight w with gradient g, learning rate r, decay d:

    w = w - r d w - r sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g

All weights of a matrix move equally far, so the learning rate should be 3 to 10 times smaller than AdamW's, and the decay larger
by as much (section 5). One mean is kept instead of two: 4 bytes a weight less than AdamW.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.choice import Choice
from shoestring.train.optimizers.groups import Optimizer, groups

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from shoestring.train.settings import Training


def lion(model: nn.Module, settings: Training, learning_rate: float) -> torch.optim.Optimizer:
    """Betas, decay and learning rate as the settings say."""
    from shoestring.train.optimizers.tensorwise import Tensorwise

    return Tensorwise(groups(model, settings.weight_decay), step, lr=learning_rate, betas=settings.betas)


def step(weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """One tensor's step, in place."""
    if not state:
        state["momentum"] = weight.new_zeros(weight.shape)
    momentum = state["momentum"]
    first, second = group["betas"]
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.add_(momentum.lerp(gradient, 1 - first).sign_(), alpha=-group["lr"])
    momentum.lerp_(gradient, 1 - second)


LION = Choice(
    "lion",
    Optimizer(lion, moments=1),
    "steps by the sign of one running mean",
    row="T2",
    paper="2302.06675",
    saves=("memory",),
)
