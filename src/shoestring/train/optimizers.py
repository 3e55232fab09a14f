"""Optimizers by name. Each is made from a model's trainable parameters, in groups that differ in weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shoestring.choice import Choice, Table
from shoestring.errors import SettingError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shoestring.train.settings import Training

Make = Callable[["nn.Module", "Training", float], "torch.optim.Optimizer"]
"""Model, settings, peak learning rate -> the optimizer."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn (`requires_grad`), by name, a shared one once.

    Raises:
        SettingError: there is none.
    """
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not found:
        raise SettingError("training: no parameter of the model is trainable; set requires_grad on those that shall learn")
    return found


def decayed(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay pulls on: matrices, but no embedding (a head tied to one neither)."""
    from torch import nn

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {name for name, parameter in trainable(model).items() if parameter.ndim >= 2 and id(parameter) not in embeddings}


def adamw(model: nn.Module, settings: Training, learning_rate: float) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101), one fused kernel for all parameters of a kind."""
    import torch

    parameters, pulled = trainable(model), decayed(model)
    groups = [
        {"params": [p for name, p in parameters.items() if name in pulled], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in parameters.items() if name not in pulled], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True)


ADAMW = Choice("adamw", adamw, "Adam with weight decay apart from the gradient, fused", row="T2", paper="1711.05101")
OPTIMIZERS: Table[Make] = Table("Training.optimizer", ADAMW)
"""Each sets the learning rate of its groups relative to what it was given: the loop scales a group's `lr` by the schedule."""
