"""What every layer of one forward pass shares beside the residual stream: positions and who may see whom.

B batch, T query tokens, S key tokens, D head size; h is 1, for all heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Inputs:
    """Made once a forward pass by the model, read by each mixer."""

    positions_BT: Tensor | None = None
    """Where each token stands; None means 0 to T-1 in every row."""
    turn_BT2D: Tensor | None = None
    """Rotary cosines and sines at those positions; None without rope."""
    visible_BhTS: Tensor | None = None
    """True where a query may see a key; None means plainly causal."""


def visible_in_cache(positions_BT: Tensor, slots: int) -> Tensor:
    """Queries see every slot up to their own position, (B, 1, T, S)."""
    return torch.arange(slots, device=positions_BT.device) <= positions_BT[:, None, :, None]


def visible_in_document(documents_BT: Tensor) -> Tensor:
    """Queries see earlier tokens of their own document, (B, 1, T, T)."""
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    return (same_BTT & torch.ones_like(same_BTT).tril())[:, None]
