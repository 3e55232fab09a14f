"""What gradients say of weights and of examples, gathered in one backward pass without keeping any of them.

For one row of a batch, a matrix with inputs a_TI and gradients g_TO by its outputs has the gradient g^T a. From these two alone:

    squares   sum over rows of (g^T a)^2, (O, I)    Fisher's diagonal: what a weight is worth (arXiv 2207.00112, 2306.07629) and
                                                    weighs in a merge (2111.09832)
    norms     |g^T a|^2 of each row, (rows,)        how much an example would move the matrix (GraNd, 2107.07075)

A row's gradient is that of its summed loss. No weight gets a gradient, so packed and frozen matrices are seen as others are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shoestring.data.batch import Batch, on
from shoestring.model import Transformer
from shoestring.train.loss import Objective, next_token


@dataclass(frozen=True, slots=True)
class Statistic:
    """What is made of the gradients of one matrix.

    Attributes:
        of: inputs (B, T, I) and gradients by the outputs (B, T, O), float32, of one batch -> a tensor.
        join: what came of the batches before, and of this one -> of all.
    """

    of: Callable[[Tensor, Tensor], Tensor]
    join: Callable[[Tensor, Tensor], Tensor]


def squares(inputs_BTI: Tensor, gradients_BTO: Tensor) -> Tensor:
    """Each weight's squared gradient, summed over rows, (O, I)."""
    total_OI = inputs_BTI.new_zeros(gradients_BTO.shape[-1], inputs_BTI.shape[-1])
    for inputs_TI, gradients_TO in zip(inputs_BTI, gradients_BTO):
        total_OI += (gradients_TO.T @ inputs_TI).square_()
    return total_OI


def norms(inputs_BTI: Tensor, gradients_BTO: Tensor) -> Tensor:
    """Each row's squared norm of the gradient, (B,): |g^T a|^2 is the sum of (a a^T) * (g g^T) too, which short rows take."""
    if inputs_BTI.shape[1] ** 2 < inputs_BTI.shape[2] * gradients_BTO.shape[2]:
        return ((inputs_BTI @ inputs_BTI.mT) * (gradients_BTO @ gradients_BTO.mT)).sum((1, 2))
    return (gradients_BTO.mT @ inputs_BTI).square_().sum((1, 2))


SQUARES = Statistic(squares, torch.add)
NORMS = Statistic(norms, lambda before, new: torch.cat((before, new)))


def gather(
    model: Transformer, batches: Iterable[Batch], statistic: Statistic, objective: Objective | None = None
) -> dict[str, Tensor]:
    """A statistic of the blocks' matrices by name, over all batches.

    Args:
        objective: next-token cross-entropy when not given.
    """
    objective, found = objective or next_token(), dict[str, Tensor]()
    device = model.embedding.weight.device
    root = torch.zeros((), device=device, requires_grad=True)  # the graph hangs on it: weights need no gradient
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hooks = [model.embedding.register_forward_hook(lambda module, inputs, output: output + root)]
    matrices: Iterable[tuple[str, Any]] = model.matrices()
    hooks += [matrix.register_forward_hook(partial(_watch, name, statistic, found)) for name, matrix in matrices]
    try:
        model.requires_grad_(False)
        for batch in batches:
            with torch.enable_grad():
                torch.autograd.grad(objective(model, on(batch, device)).total, root)
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in learning:
            parameter.requires_grad_(True)
    return found


def _watch(
    name: str, statistic: Statistic, found: dict[str, Tensor], module: object, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    """Of a matrix that has multiplied: take the statistic when the gradient by its output is known."""
    given_BTI = inputs[0].detach()

    def take(gradient_BTO: Tensor) -> None:
        new = statistic.of(given_BTI.float(), gradient_BTO.float())
        found[name] = statistic.join(found[name], new) if name in found else new

    output.register_hook(take)
