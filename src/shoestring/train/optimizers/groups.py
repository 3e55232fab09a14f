"""What an optimizer is here, which parameters learn, and which of them weight decay pulls on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import SettingError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shoestring.train.settings import Training


@dataclass(frozen=True, slots=True)
class Optimizer:
    """How an optimizer is made, and what it takes.

    Attributes:
        make: model, settings and peak learning rate -> the optimizer. It sets the learning rate of its groups relative to that:
            the loop scales a group's `lr` by the schedule.
        moments: float32 numbers that it keeps for each weight of the blocks' matrices.
        outside: for each other weight; as many when not given.
    """

    make: Callable[[nn.Module, Training, float], torch.optim.Optimizer]
    moments: int
    outside: int | None = None

    def kept(self, matrices: float, others: float) -> float:
        """Numbers kept for so many weights of the blocks' matrices and others."""
        return self.moments * matrices + (self.moments if self.outside is None else self.outside) * others


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


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters as an optimizer's groups: those that are pulled towards zero, then the others; those that are
    divided among other ranks apart, since one kernel can't take both.
    """
    from shoestring.train.parallel.layout import apart

    parameters, pulled = trainable(model), decayed(model)
    found: list[dict[str, Any]] = [
        {"params": [p for name, p in parameters.items() if name in pulled], "weight_decay": weight_decay},
        {"params": [p for name, p in parameters.items() if name not in pulled], "weight_decay": 0.0},
    ]
    return [{**group, "params": params} for group in found for params in apart(group["params"])]
