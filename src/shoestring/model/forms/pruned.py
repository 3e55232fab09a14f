"""When a matrix counts as pruned: one rule for training, adapters and quantizers."""

from __future__ import annotations

from torch import Tensor

PRUNED = 0.01
"""A matrix with more than this share of zeros was pruned: its zeros stay."""


def nonzero(weight_NK: Tensor, share: float = PRUNED) -> Tensor | None:
    """True where a pruned matrix isn't zero, (N, K); None when no more than `share` of it is zero."""
    kept_NK = weight_NK.detach() != 0
    return kept_NK if 1 - kept_NK.float().mean().item() > share else None
