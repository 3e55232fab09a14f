"""Optimizers by name. Each is made from a model's trainable parameters, in groups that differ in weight decay.

A new one is a file here with a function and its `Choice`, and a name in `OPTIMIZERS`; where PyTorch has none, the function is
`Tensorwise` with a rule for one tensor.
"""

from shoestring.choice import Table
from shoestring.train.optimizers.adamw import ADAMW
from shoestring.train.optimizers.groups import Optimizer, decayed, trainable
from shoestring.train.optimizers.lion import LION
from shoestring.train.optimizers.muon import MUON

__all__ = ["OPTIMIZERS", "Optimizer", "decayed", "trainable"]

OPTIMIZERS = Table("Training.optimizer", ADAMW, LION, MUON)
