"""The inverse of a Gram matrix, factored: what tells a solver how the error of one column is made good by the others.

H^-1 = U^T U with U upper triangular, columns in the order in which they will be changed; the rows of U divided by its diagonal
are the steps that the columns still free take.

I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shoestring.errors import NotFinite

MOST_DAMPING = 8
"""Times that more damping is tried, ten times as much each time."""


@dataclass(frozen=True, slots=True)
class Factor:
    """What GPTQ needs of a Gram matrix; shared by all matrices that read the same input.

    Attributes:
        order_I: column numbers in the order in which they are rounded.
        unit_II: U with each row divided by its diagonal, in that order, float32.
        double: float32 was not enough to factor it.
    """

    order_I: Tensor
    unit_II: Tensor
    double: bool


def factor(gram_II: Tensor, act_order: bool = True, damping: float = 0.01) -> Factor:
    """Order the columns and factor the inverse of the damped Gram matrix.

    An input that is always zero keeps a column of its own: it is rounded to nearest and disturbs no other.

    Args:
        gram_II: sum of x x^T, float32.
        damping: share of the mean diagonal that is added to it (the paper's 1 %).

    Raises:
        NotFinite: no damping makes it positive definite, as when it holds NaN.
    """
    gram_II = gram_II.clone()
    diagonal_I = gram_II.diagonal()
    diagonal_I[diagonal_I == 0] = diagonal_I.mean().clamp_min(torch.finfo(torch.float32).tiny)
    order_I = torch.arange(len(gram_II), device=gram_II.device)
    if act_order:
        order_I = torch.argsort(diagonal_I, descending=True, stable=True)
        gram_II = gram_II[order_I][:, order_I]
    share = damping * gram_II.diagonal().mean()
    gram_II.diagonal().add_(share)
    unit_II, failed = _inverse_upper(gram_II)
    double = failed
    for more in range(MOST_DAMPING):
        if not failed:
            break
        # float64 nearly always suffices; more damping is the last resort.
        unit_II, failed = _inverse_upper(gram_II.double())
        gram_II.diagonal().add_(share * 10**more)
    if failed:
        raise NotFinite("a Gram matrix could not be factored, however damped; the inputs that it was summed from are not sound")
    unit_II = unit_II / unit_II.diagonal()[:, None]
    return Factor(order_I, unit_II.float(), double)


def _inverse_upper(gram_II: Tensor) -> tuple[Tensor, bool]:
    """Upper triangular U with H^-1 = U^T U, and whether H was not positive definite.

    Backwards, H = R R^T with R upper triangular, and U is the inverse of R: one factorisation and one triangular solve, where
    the usual route through the inverse needs two factorisations.
    """
    lower_II, info = torch.linalg.cholesky_ex(gram_II.flip(0, 1))
    if info.item() or not torch.isfinite(lower_II).all():
        return gram_II, True
    upper_II = lower_II.flip(0, 1)
    identity_II = torch.eye(len(gram_II), dtype=gram_II.dtype, device=gram_II.device)
    return torch.linalg.solve_triangular(upper_II, identity_II, upper=True), False
