"""Muon (Jordan and others, 2024): a matrix moves by its momentum with all singular values made one.

For a matrix W (O, I) with gradient G, learning rate r, decay d, momentum b:

    M = b M + G;  X = orthogonal(G + b M);  W = W - r d W - 0.2 r sqrt(max(O, I)) X

orthogonal: five Newton-Schulz steps X = a X + (b A + c A^2) X with A = X X^T. The factor gives a step AdamW's usual size, so that
learning rate and decay need no search of their own (arXiv 2502.16982, section 2.2). Embedding, head, norms and biases take
AdamW's step. One mean a weight is kept for matrices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from shoestring.choice import Choice
from shoestring.train.optimizers.groups import Optimizer, groups

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from shoestring.train.settings import Training

MOMENTUM = 0.95


def muon(model: nn.Module, settings: Training, learning_rate: float) -> torch.optim.Optimizer:
    """Matrices of the blocks in groups of their own."""
    from shoestring.train.optimizers.tensorwise import Tensorwise

    outside = ("embedding.", "positions.", "head.")
    inside = {id(p) for name, p in model.named_parameters() if p.ndim == 2 and not name.startswith(outside)}
    split = [
        {**group, "params": chosen, "orthogonal": orthogonal}
        for group in groups(model, settings.weight_decay)
        for orthogonal in (True, False)
        if (chosen := [p for p in group["params"] if (id(p) in inside) == orthogonal])
    ]
    return Tensorwise(split, step, lr=learning_rate, betas=settings.betas, epsilon=settings.epsilon)


def step(weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """One tensor's step, in place."""
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    if not group["orthogonal"]:
        _adam(weight, gradient, state, group)
        return
    from shoestring.train.parallel.layout import like, whole

    if not state:
        state["momentum"] = weight.new_zeros(weight.shape)
    state["momentum"].mul_(MOMENTUM).add_(gradient)
    moved = orthogonal(whole(gradient.add(state["momentum"], alpha=MOMENTUM)))
    weight.add_(like(moved, weight), alpha=-0.2 * group["lr"] * math.sqrt(max(weight.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with nearly the same singular vectors whose singular values are between 0.7 and 1.2."""
    import torch

    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = (x / (x.norm() + 1e-7)).to(torch.bfloat16 if matrix.is_cuda else matrix.dtype)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).to(matrix.dtype)


def _adam(weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state.update(steps=0, mean=weight.new_zeros(weight.shape), square=weight.new_zeros(weight.shape))
    first, second = group["betas"]
    state["steps"] += 1
    state["mean"].lerp_(gradient, 1 - first)
    state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    root = (state["square"] / (1 - second ** state["steps"])).sqrt_().add_(group["epsilon"])
    weight.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - first ** state["steps"]))


MUON = Choice(
    "muon",
    Optimizer(muon, moments=1, outside=2),
    "makes the momentum of a matrix orthogonal before it moves",
    row="T2",
    paper="2502.16982",
    saves=("computation", "memory"),
)
