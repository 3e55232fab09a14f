"""Optimizers by name. Each is made from a model's trainable parameters, in groups that differ in weight decay.

A new one is a file here with a function and its `Choice`, and a name in `OPTIMIZERS`; where PyTorch has none, the function is
`Tensorwise` with a rule for one tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shoestring.choice import Table
from shoestring.train.optimizers.adamw import ADAMW
from shoestring.train.optimizers.groups import decayed, trainable
from shoestring.train.optimizers.lion import LION

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shoestring.train.settings import Training

__all__ = ["OPTIMIZERS", "decayed", "trainable"]

OPTIMIZERS: Table[Callable[[nn.Module, Training, float], torch.optim.Optimizer]] = Table("Training.optimizer", ADAMW, LION)
"""Each takes the model, the settings and the peak learning rate, and sets the learning rate of its groups relative to that: the
loop scales a group's `lr` by the schedule.
"""
