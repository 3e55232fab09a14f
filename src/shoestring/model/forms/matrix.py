"""What a matrix is, however it is kept: it multiplies, and it can say its weights row by row.

A form that only says `weight_rows` works everywhere: its product unpacks a block of rows at a time, exactly, and its gradient
flows to the inputs. A form may name faster products; the first one that serves a call is taken.

N outputs, K inputs, M rows of activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

BLOCK = 1 << 22
"""Weights that are unpacked at once: bounds the memory of a product to about 16 MB beyond its operands."""


class Matrix(Protocol):
    """x @ W^T (+ bias), W kept in some form."""

    in_features: int
    out_features: int

    @property
    def form(self) -> str:
        """Its name in FORMS."""

    @property
    def bias(self) -> Tensor | None:
        """Added to what comes out, (N,)."""

    def forward(self, x: Tensor) -> Tensor:
        """The product."""

    def weight_rows(self, first: int = 0, last: int | None = None) -> Tensor:
        """Rows of the weight, floating (N, K)."""

    def settings(self) -> dict[str, Any]:
        """What must be known beside its tensors to make it again, plain data."""

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for a weight, everything counted in but the bias."""


class Dense(nn.Linear):
    """A plain matrix."""

    form: ClassVar[str] = "dense"

    def weight_rows(self, first: int = 0, last: int | None = None) -> Tensor:
        """Rows of the weight itself."""
        return self.weight[first:last]

    def settings(self) -> dict[str, Any]:
        return {}

    @property
    def bits_per_weight(self) -> float:
        return 8.0 * self.weight.element_size()

    @classmethod
    def built(cls, tensors: dict[str, Tensor]) -> Dense:
        """From `weight`, and `bias` where there is one."""
        made = cls(1, 1, bias=False, device="meta")
        made.weight = nn.Parameter(tensors["weight"])
        made.out_features, made.in_features = tensors["weight"].shape
        made.register_parameter("bias", nn.Parameter(tensors["bias"]) if "bias" in tensors else None)
        return made


def to_dense(matrix: Matrix) -> Dense:
    """The same as a plain matrix, of the same numbers."""
    tensors = {"weight": matrix.weight_rows()} | ({} if matrix.bias is None else {"bias": matrix.bias.detach()})
    return Dense.built(tensors)


@dataclass(frozen=True, slots=True)
class Product:
    """A faster way to multiply.

    Attributes:
        name: what `backend` says.
        serves: whether it takes a matrix and its inputs (M, K).
        prepare: what it makes of the matrix, once; kept beside it until it is moved, recast or loaded.
        multiply: inputs, what was prepared, the matrix -> outputs (M, N), without the bias.
    """

    name: str
    serves: Callable[[Any, Tensor], bool]
    prepare: Callable[[Any], Any]
    multiply: Callable[[Tensor, Any, Any], Tensor]


class Kept(nn.Module):
    """A matrix that is kept as something else than its weights: what all such forms share.

    Attributes:
        backend: which product ran last.
    """

    form: ClassVar[str]
    products: ClassVar[tuple[Product, ...]] = ()
    """Quickest first."""
    bias: Tensor | None

    def __init__(self, outputs: int, inputs: int, tensors: dict[str, Tensor | None]) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        if "bias" not in tensors:
            self.register_buffer("bias", None)
        self.backend = "none yet"
        self._prepared: dict[str, Any] = {}

    def weight_rows(self, first: int = 0, last: int | None = None) -> Tensor:
        """Rows of the weight, float32 (N, K)."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What must be known beside its tensors to make it again."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        x_MK = x.reshape(-1, self.in_features)
        found = next((product for product in self.products if product.serves(self, x_MK)), None)
        if found is None:
            self.backend = f"unpack and multiply ({x.device.type}, {str(x.dtype).removeprefix('torch.')})"
            y_MN = _Unpacked.apply(x_MK, self)
        else:
            self.backend = found.name
            if found.name not in self._prepared:
                self._prepared[found.name] = found.prepare(self)
            y_MN = found.multiply(x_MK, self._prepared[found.name], self)
        if self.bias is not None:
            y_MN = y_MN + self.bias.to(y_MN.dtype)
        return y_MN.view(*x.shape[:-1], self.out_features)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for a weight, all tensors counted in but the bias and the shape."""
        stored = [tensor for name, tensor in self.named_buffers() if name != "bias" and not name.endswith("shape")]
        return 8 * sum(t.numel() * t.element_size() for t in stored) / (self.out_features * self.in_features)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Rows that are unpacked at one time."""
        rows = max(1, BLOCK // self.in_features)
        return ((first, min(first + rows, self.out_features)) for first in range(0, self.out_features, rows))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Kept:
        self._prepared = {}  # moved or recast buffers make what was prepared stale
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self._prepared = {}
        super()._load_from_state_dict(*arguments, **named)


class _Unpacked(torch.autograd.Function):
    """x @ W^T, block by block; the backward pass unpacks W again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, layer: Kept) -> Tensor:
        ctx.layer = layer
        y_MN = x_MK.new_empty(x_MK.shape[0], layer.out_features)
        for first, last in layer.blocks():
            y_MN[:, first:last] = x_MK @ layer.weight_rows(first, last).to(x_MK.dtype).T
        return y_MN

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient_MN, layer = gradients[0], ctx.layer
        gradient_MK = gradient_MN.new_zeros(gradient_MN.shape[0], layer.in_features)
        for first, last in layer.blocks():
            gradient_MK += gradient_MN[:, first:last] @ layer.weight_rows(first, last).to(gradient_MN.dtype)
        return gradient_MK, None
