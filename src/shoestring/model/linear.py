"""A linear layer whose weight stays in 2 to 8 bits: w = (code - zero) * scale, one scale (and zero) for each group of inputs.

The layout is the `pack-quantized` one of compressed-tensors, so that a layer's buffers are what is written to disk: codes
are signed, [-2^(b-1), 2^(b-1) - 1], stored with 2^(b-1) added, as a little-endian stream of bits in int32 words along
the inputs (zeros: along the outputs).

N outputs, K inputs, G groups of K/G inputs, W words, M rows of activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

BLOCK = 1 << 22
"""Weights that are unpacked at once: bounds the memory of a product to about 16 MB beyond its operands."""

KERNEL_ROWS = 64
"""Up to this many rows PyTorch's int4 kernel beats unpacking (1536 x 576, one AVX-512 core: 1.5x a dense product at one row)."""

KERNEL_GROUPS = (256, 128, 64, 32)
"""Group sizes the int4 kernel knows; a larger group is served by repeating its scale."""


def pack(codes_NK: Tensor, bits: int) -> Tensor:
    """Signed codes, int8 (N, K), as int32 words (N, W) with W = ceil(K * bits / 32); element i begins at bit i * bits."""
    rows, count = codes_NK.shape
    words = -(-count * bits // 32)
    if bits == 4 and count % 8 == 0:  # the common case, ten times as fast as the general one below
        pairs = codes_NK.reshape(-1).view(torch.int16)
        return (((pairs & 0x0F) | ((pairs >> 4) & 0xF0)) ^ 0x88).to(torch.uint8).view(torch.int32).view(rows, words)
    fields = (codes_NK + (1 << (bits - 1))).to(torch.uint8)
    if 8 % bits == 0:
        per_byte = 8 // bits
        fields = F.pad(fields, (0, words * 4 * per_byte - count)).view(rows, words * 4, per_byte)
        octets = (fields << _shifts(0, 8, bits, fields.device)).sum(-1, dtype=torch.uint8)
    else:
        stream = ((fields[..., None] >> _shifts(0, bits, 1, fields.device)) & 1).reshape(rows, count * bits)
        stream = F.pad(stream, (0, words * 32 - count * bits)).view(rows, words * 4, 8)
        octets = (stream << _shifts(0, 8, 1, fields.device)).sum(-1, dtype=torch.uint8)
    return octets.contiguous().view(torch.int32)


def unpack(words_NW: Tensor, bits: int, count: int) -> Tensor:
    """The signed codes, int8 (N, count), that `pack` packed."""
    rows = words_NW.shape[0]
    octets = words_NW.contiguous().view(torch.uint8)
    if bits == 4:  # the common case, twice as fast as the general one below
        fields = torch.stack((octets & 15, octets >> 4), dim=-1).view(rows, -1)[:, :count]
    elif 8 % bits == 0:
        fields = (octets[..., None] >> _shifts(0, 8, bits, octets.device)) & ((1 << bits) - 1)
        fields = fields.view(rows, -1)[:, :count]
    else:
        stream = ((octets[..., None] >> _shifts(0, 8, 1, octets.device)) & 1).view(rows, -1)
        stream = stream[:, : count * bits].reshape(rows, count, bits)
        fields = (stream << _shifts(0, bits, 1, octets.device)).sum(-1, dtype=torch.uint8)
    # Unsigned subtraction wraps, and the wrapped byte read as signed is the code.
    return (fields - (1 << (bits - 1))).contiguous().view(torch.int8)


class PackedLinear(nn.Module):
    """x @ W^T (+ bias) with W packed; its gradient flows to x, never to W.

    In float32 and float16 it unpacks a block of rows at a time and multiplies, exactly. In bfloat16 on a CPU, 4-bit
    layers run small batches in PyTorch's int4 kernel; for that a second copy in the kernel's order, with scales in
    bfloat16, is made at the first such call (`bits` more per weight). `backend` says which one ran last.

    Attributes:
        weight_packed: int32 (N, W).
        weight_scale: floating (N, G).
        weight_zero_point: int32 (ceil(N * bits / 32), G), or None when codes are symmetric.
        weight_shape: int64 (N, K).
    """

    weight_packed: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor | None
    weight_shape: Tensor
    bias: Tensor | None

    def __init__(
        self,
        packed_NW: Tensor,
        scale_NG: Tensor,
        zero_packed: Tensor | None,
        inputs: int,
        bits: int,
        bias_N: Tensor | None = None,
    ) -> None:
        """Take buffers that are packed already.

        Raises:
            ValueError: shapes that don't belong together.
        """
        super().__init__()
        self.in_features, self.out_features, self.bits = inputs, packed_NW.shape[0], bits
        groups = scale_NG.shape[1]
        expected = (self.out_features, -(-inputs * bits // 32))
        if not 2 <= bits <= 8 or packed_NW.shape != expected or scale_NG.shape[0] != self.out_features or inputs % groups:
            raise ValueError(
                f"{bits}-bit weights of {self.out_features} x {inputs} are packed as {expected}, in groups that divide "
                f"{inputs}; got {tuple(packed_NW.shape)} with scales {tuple(scale_NG.shape)}"
            )
        if zero_packed is not None and zero_packed.shape != (-(-self.out_features * bits // 32), groups):
            raise ValueError(f"zeros of {self.out_features} x {groups} can't be packed as {tuple(zero_packed.shape)}")
        self.group_size = inputs // groups
        self.register_buffer("weight_packed", packed_NW)
        self.register_buffer("weight_scale", scale_NG)
        self.register_buffer("weight_zero_point", zero_packed)
        self.register_buffer("weight_shape", torch.tensor([self.out_features, inputs]))
        self.register_buffer("bias", bias_N)
        self.backend = "none yet"
        self._kernel: tuple[Tensor, Tensor, int] | None = None

    @classmethod
    def from_parts(
        cls,
        codes_NK: Tensor,
        scale_NG: Tensor,
        zero_NG: Tensor | None,
        bits: int,
        group_size: int | None = None,
        bias_N: Tensor | None = None,
    ) -> PackedLinear:
        """Pack codes.

        Args:
            codes_NK: integers in [-2^(bits-1), 2^(bits-1) - 1].
            scale_NG: floating; kept in the dtype it comes in.
            zero_NG: integers in the same range as the codes, or None: w = (code - zero) * scale.
            group_size: inputs that share a scale, -1 for all of them; it follows from the scales' shape when not given.

        Raises:
            ValueError: codes out of range, or shapes that don't belong together.
        """
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        for what, values in (("codes", codes_NK), ("zeros", zero_NG)):
            if values is not None and (values.min() < low or values.max() > high):
                raise ValueError(f"{what} of {bits} bits lie in {low} to {high}, got {int(values.min())} to {int(values.max())}")
        inputs, groups = codes_NK.shape[1], scale_NG.shape[1]
        size = {None: inputs // groups, -1: inputs}.get(group_size, group_size)
        if size is None or groups * size != inputs:
            raise ValueError(f"groups of {size} in {inputs} inputs need {inputs / (size or 1):g} scales, got {groups}")
        zeros = None if zero_NG is None else pack(zero_NG.to(torch.int8).T.contiguous(), bits).T.contiguous()
        return cls(pack(codes_NK.to(torch.int8), bits), scale_NG.contiguous(), zeros, inputs, bits, bias_N)

    def codes(self, first: int = 0, last: int | None = None) -> Tensor:
        """The codes of output rows `first` to `last`, int8."""
        return unpack(self.weight_packed[first:last], self.bits, self.in_features)

    def zeros(self) -> Tensor | None:
        """The zeros, int8 (N, G), or None when codes are symmetric."""
        if self.weight_zero_point is None:
            return None
        return unpack(self.weight_zero_point.T, self.bits, self.out_features).T

    def dequantize(self, first: int = 0, last: int | None = None) -> Tensor:
        """The weight's rows `first` to `last`, float32 (N, K): (code - zero) * scale, without further rounding."""
        codes = self.codes(first, last).view(-1, self.weight_scale.shape[1], self.group_size).float()
        zeros = self.zeros()
        if zeros is not None:
            codes -= zeros[first:last, :, None].float()
        return (codes * self.weight_scale[first:last, :, None].float()).view(-1, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        x_MK = x.reshape(-1, self.in_features)
        if self._kernel_serves(x_MK):
            self.backend = "int4pack kernel (CPU, bfloat16)"
            packed, scale_and_zero, group = self._kernel_form()
            y_MN = torch.ops.aten._weight_int4pack_mm_for_cpu(x_MK.contiguous(), packed, group, scale_and_zero)
        else:
            self.backend = f"unpack and multiply ({x.device.type}, {str(x.dtype).removeprefix('torch.')})"
            y_MN = _Product.apply(x_MK, self)
        if self.bias is not None:
            y_MN = y_MN + self.bias.to(y_MN.dtype)
        return y_MN.view(*x.shape[:-1], self.out_features)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for a weight, scales and zeros counted in, the bias not."""
        stored = [t for t in (self.weight_packed, self.weight_scale, self.weight_zero_point) if t is not None]
        return 8 * sum(t.numel() * t.element_size() for t in stored) / (self.out_features * self.in_features)

    def extra_repr(self) -> str:
        zeros = "symmetric" if self.weight_zero_point is None else "with zeros"
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, group_size={self.group_size}, {zeros}"

    def _kernel_serves(self, x_MK: Tensor) -> bool:
        fits = self.bits == 4 and self.out_features % 16 == 0 and any(self.group_size % g == 0 for g in KERNEL_GROUPS)
        plain = (
            x_MK.dtype == torch.bfloat16 and x_MK.device.type == "cpu" and not (torch.is_grad_enabled() and x_MK.requires_grad)
        )
        return fits and plain and x_MK.shape[0] <= KERNEL_ROWS and hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")

    def _kernel_form(self) -> tuple[Tensor, Tensor, int]:
        """Codes in the kernel's order, scales and offsets (K / group, N, 2) in bfloat16, the kernel's group size."""
        if self._kernel is None:
            group = next(g for g in KERNEL_GROUPS if self.group_size % g == 0)
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(self.codes().to(torch.int32) + 8, 1)
            zeros, scale = self.zeros(), self.weight_scale.float()
            # The kernel computes (code - 8) * scale + offset on unsigned codes.
            offset = torch.zeros_like(scale) if zeros is None else -zeros.float() * scale
            both = torch.stack((scale, offset), dim=-1).transpose(0, 1).repeat_interleave(self.group_size // group, dim=0)
            self._kernel = packed, both.contiguous().to(torch.bfloat16), group
        return self._kernel

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        self._kernel = None  # moved or recast buffers make the kernel's copy stale
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self._kernel = None
        super()._load_from_state_dict(*arguments, **named)


def linears(block: nn.Module) -> dict[str, nn.Module]:
    """The matrices of a block by dotted name, in the order in which they compute: mixer.query ... feed_forward.down."""
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear | PackedLinear)}


class _Product(torch.autograd.Function):
    """x @ W^T, block by block; the backward pass unpacks W again instead of keeping it."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_MK: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer  # type: ignore[attr-defined]
        y_MN = x_MK.new_empty(x_MK.shape[0], layer.out_features)
        for first, last in _blocks(layer):
            y_MN[:, first:last] = x_MK @ layer.dequantize(first, last).to(x_MK.dtype).T
        return y_MN

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient_MN, layer = gradients[0], ctx.layer
        gradient_MK = gradient_MN.new_zeros(gradient_MN.shape[0], layer.in_features)
        for first, last in _blocks(layer):
            gradient_MK += gradient_MN[:, first:last] @ layer.dequantize(first, last).to(gradient_MN.dtype)
        return gradient_MK, None


def _blocks(layer: PackedLinear) -> list[tuple[int, int]]:
    rows = max(1, BLOCK // layer.in_features)
    return [(first, min(first + rows, layer.out_features)) for first in range(0, layer.out_features, rows)]


def _shifts(first: int, last: int, step: int, device: torch.device) -> Tensor:
    return torch.arange(first, last, step, dtype=torch.uint8, device=device)
