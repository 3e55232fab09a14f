"""AdamW (Loshchilov and Hutter, arXiv 1711.05101): Adam's step; weight decay acts on the weight, not through the gradient.

For a weight w with gradient g at step t, learning rate r, decay d:

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
    w = w - r d w - r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)

Dividing by the root of v gives each weight a step of about r whatever the scale of its gradient. Both means are kept in float32:
8 bytes a weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.choice import Choice
from shoestring.train.optimizers.groups import Optimizer, groups

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shoestring.train.settings import Training


def adamw(model: nn.Module, settings: Training, learning_rate: float) -> torch.optim.Optimizer:
    """PyTorch's, one fused kernel for all parameters of a kind."""
    import torch

    found = groups(model, settings.weight_decay)
    return torch.optim.AdamW(found, lr=learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True)


ADAMW = Choice(
    "adamw", Optimizer(adamw, moments=2), "Adam with weight decay apart from the gradient, fused", row="T2", paper="1711.05101"
)
