"""LoRA (arXiv 2106.09685): learn a matrix's change as a product of two thin ones, the matrix itself frozen.

    y = x W^T + s (x A^T) B^T,    s = alpha / rank,  or alpha / sqrt(rank) in rsLoRA (arXiv 2312.03732, theorem 3.2)

A starts as uniform noise, B as zeros, so training begins at the model itself. W may be packed in few bits: gradients pass
through it to x (the form of QLoRA, arXiv 2305.14314). With `keep_zeros` the change of a pruned matrix is masked in training
and in merging alike, W + s (B A) * (W != 0): what is merged is what was trained, and stays as sparse as it was.

K inputs, N outputs, R rank.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.model.forms.matrix import Dense, to_dense
from shoestring.model.forms.pruned import nonzero


@dataclass(frozen=True, slots=True)
class Shape:
    """What all adapters of a model share."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    """Share of the inputs that the adapter does not see at each step."""
    rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""

    @property
    def scale(self) -> float:
        """What the product of the two thin matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class LoRALinear(nn.Module):
    """A frozen linear layer, plain or packed, with a thin change beside it.

    Attributes:
        base: the layer. first: A, (R, K). second: B, (N, R).
        kept: True where the base's weight isn't zero, (N, K), when zeros are kept; None otherwise.
    """

    kept: Tensor | None

    form: ClassVar[str] = "adapted"

    def __init__(self, base: Any, shape: Shape, generator: torch.Generator, keep_zeros: bool = False) -> None:
        super().__init__()
        self.base, self.shape = base, shape
        self.in_features, self.out_features = base.in_features, base.out_features
        device = next(tensor.device for tensor in (*base.parameters(), *base.buffers()))
        bound = 1 / math.sqrt(self.in_features)
        noise = torch.rand(shape.rank, self.in_features, generator=generator) * 2 - 1
        self.first = nn.Parameter((noise * bound).to(device))
        self.second = nn.Parameter(torch.zeros(self.out_features, shape.rank, device=device))
        kept = nonzero(base.weight) if keep_zeros and base.form == "dense" else None
        # Not saved: it follows from the base.
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = F.dropout(x, self.shape.dropout, self.training)
        if self.kept is not None:
            return self.base(x) + F.linear(seen, self.change().to(x.dtype))
        first, second = self.first.to(x.dtype), self.second.to(x.dtype)
        return self.base(x) + F.linear(F.linear(seen, first), second) * self.shape.scale

    def change(self) -> Tensor:
        """What is added to the weight, float32 (N, K)."""
        change_NK = (self.second.float() @ self.first.float()) * self.shape.scale
        return change_NK if self.kept is None else change_NK * self.kept

    def weight_rows(self, first: int = 0, last: int | None = None) -> Tensor:
        """Rows of the weight with its change, (N, K)."""
        rows = self.base.weight_rows(first, last)
        return (rows.float() + self.change()[first:last]).to(rows.dtype)

    def settings(self) -> dict[str, Any]:
        return asdict(self.shape)

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        found: Tensor | None = self.base.bias
        return found

    @property
    def bits_per_weight(self) -> float:
        """The base's, and the thin matrices'."""
        thin = self.first.nbytes + self.second.nbytes
        return float(self.base.bits_per_weight) + 8 * thin / (self.in_features * self.out_features)

    @torch.no_grad()
    def merged(self) -> Dense:
        """The one plain matrix that does the same, in place where the base is one; a packed base becomes float32."""
        if self.base.form != "dense":
            return to_dense(self)
        self.base.weight.copy_(self.weight_rows())
        found: Dense = self.base
        return found
