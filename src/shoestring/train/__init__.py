"""How a model learns: one training loop, optimizers, schedules, precision, restart points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.lazy import lazily

if TYPE_CHECKING:
    from shoestring.choice import Table
    from shoestring.technique import Technique
    from shoestring.train.callbacks import Callback, KeepZeros
    from shoestring.train.compiling import COMPILES
    from shoestring.train.log import cut, write_log
    from shoestring.train.loop import train
    from shoestring.train.loss import Loss, Objective, cross_entropy, next_token
    from shoestring.train.optimizers import OPTIMIZERS
    from shoestring.train.parts import Around
    from shoestring.train.precision import PRECISIONS
    from shoestring.train.pretrain import Pretrain
    from shoestring.train.schedule import SCHEDULES, Plan
    from shoestring.train.settings import FEATURES, Training
    from shoestring.train.stepping import STEPPERS
    from shoestring.train.training_plan import TrainingPlan

    TECHNIQUES: tuple[type[Technique], ...]
    TABLES: tuple[Table[Any], ...]

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

__all__ = [
    "TABLES",
    "TECHNIQUES",
    "VERSION",
    "Around",
    "Callback",
    "KeepZeros",
    "Loss",
    "Objective",
    "Plan",
    "Pretrain",
    "Training",
    "TrainingPlan",
    "cross_entropy",
    "cut",
    "next_token",
    "train",
    "write_log",
]

__getattr__ = lazily(
    __name__,
    __file__,
    TECHNIQUES=("Pretrain",),
    TABLES=("FEATURES", "STEPPERS", "OPTIMIZERS", "SCHEDULES", "PRECISIONS", "COMPILES"),
)
