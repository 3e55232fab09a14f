"""How a model learns: one training loop, optimizers, schedules, precision, restart points."""

from shoestring.train.callbacks import Callback, KeepZeros
from shoestring.train.loop import train
from shoestring.train.loss import IGNORED, Objective, cross_entropy, next_token
from shoestring.train.settings import Training, TrainingPlan

__all__ = [
    "IGNORED",
    "Callback",
    "KeepZeros",
    "Objective",
    "Training",
    "TrainingPlan",
    "cross_entropy",
    "next_token",
    "train",
]
