"""How a model learns: one training loop, optimizers, schedules, precision, restart points."""

from shoestring.technique import Choice, Technique
from shoestring.train.callbacks import Callback, KeepZeros
from shoestring.train.loop import train
from shoestring.train.loss import IGNORED, Objective, cross_entropy, next_token
from shoestring.train.pretrain import Pretrain
from shoestring.train.progress import cut, write_log
from shoestring.train.settings import Training, TrainingPlan

__all__ = [
    "CHOICES",
    "IGNORED",
    "TECHNIQUES",
    "Callback",
    "KeepZeros",
    "Objective",
    "Pretrain",
    "Training",
    "TrainingPlan",
    "cross_entropy",
    "cut",
    "next_token",
    "train",
    "write_log",
]

TECHNIQUES: tuple[type[Technique], ...] = (Pretrain,)


def _choice(field: str, name: str, does: str, row: str, paper: str = "", saves: tuple[str, ...] = ()) -> Choice:
    return Choice("train", f"Training.{field}", name, does, row, paper, saves)


CHOICES: tuple[Choice, ...] = (
    _choice("clip", "1.0", "cuts the norm of the whole gradient to a largest value", "T1", "1211.5063"),
    _choice("optimizer", "adamw", "Adam with weight decay apart from the gradient, fused", "T2", "1711.05101"),
    _choice("schedule", "wsd", "warm-up, stable, decay: one trunk serves many budgets", "T3", "2404.06395", ("computation",)),
    _choice("schedule", "cosine", "warm-up, then half a cosine down to a floor", "T3", "1608.03983"),
    _choice(
        "precision",
        "bf16",
        "matrix products in bfloat16, master weights in float32",
        "T4",
        "1710.03740",
        ("computation", "memory"),
    ),
    _choice("compile", "regional", "each block compiled once by torch.compile", "X6", "", ("computation", "memory")),
    _choice(
        "loss_chunk", "16384", "head, loss and gradient in chunks of tokens; no full logits", "X6", "2410.10989", ("memory",)
    ),
)
