"""A matrix in 2 to 8 bits: w = (code - zero) * scale, one scale (and zero) for each group of inputs.

The layout is the `pack-quantized` one of compressed-tensors, so that a layer's buffers are what is written to disk (`bits`).

N outputs, K inputs, G groups of K/G inputs, W words, M rows of activations.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from shoestring.model.forms.bits import pack, unpack
from shoestring.model.forms.matrix import Kept, Product

KERNEL_ROWS = 64
"""Up to this many rows PyTorch's int4 kernel beats unpacking (1536 x 576, one AVX-512 core: 1.5x a dense product at one row)."""

KERNEL_GROUPS = (256, 128, 64, 32)
"""Group sizes the int4 kernel knows; a larger group is served by repeating its scale."""


def _serves(layer: PackedLinear, x_MK: Tensor) -> bool:
    fits = layer.bits == 4 and layer.out_features % 16 == 0 and any(layer.group_size % g == 0 for g in KERNEL_GROUPS)
    plain = x_MK.dtype == torch.bfloat16 and x_MK.device.type == "cpu" and not (torch.is_grad_enabled() and x_MK.requires_grad)
    return fits and plain and x_MK.shape[0] <= KERNEL_ROWS and hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")


def _prepare(layer: PackedLinear) -> tuple[Tensor, Tensor, int]:
    """Codes in the kernel's order, scales and offsets (K / group, N, 2) in bfloat16, the kernel's group size."""
    group = next(g for g in KERNEL_GROUPS if layer.group_size % g == 0)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(layer.codes().to(torch.int32) + 8, 1)
    zeros, scale = layer.zeros(), layer.weight_scale.float()
    # The kernel computes (code - 8) * scale + offset on unsigned codes.
    offset = torch.zeros_like(scale) if zeros is None else -zeros.float() * scale
    both = torch.stack((scale, offset), dim=-1).transpose(0, 1).repeat_interleave(layer.group_size // group, dim=0)
    return packed, both.contiguous().to(torch.bfloat16), group


def _multiply(x_MK: Tensor, prepared: tuple[Tensor, Tensor, int], layer: PackedLinear) -> Tensor:
    packed, scale_and_zero, group = prepared
    found: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x_MK.contiguous(), packed, group, scale_and_zero)
    return found


def packed(
    codes_NK: Tensor, scale_NG: Tensor, zero_NG: Tensor | None, bits: int, group_size: int | None = None
) -> dict[str, Tensor]:
    """The tensors of a packed matrix.

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
    (outputs, inputs), groups = codes_NK.shape, scale_NG.shape[1]
    size = {None: inputs // groups, -1: inputs}.get(group_size, group_size)
    if size is None or groups * size != inputs:
        raise ValueError(f"groups of {size} in {inputs} inputs need {inputs / (size or 1):g} scales, got {groups}")
    found = {
        "weight_packed": pack(codes_NK.to(torch.int8), bits),
        "weight_scale": scale_NG.contiguous(),
        "weight_shape": torch.tensor([outputs, inputs]),
    }
    if zero_NG is not None:
        found["weight_zero_point"] = pack(zero_NG.to(torch.int8).T.contiguous(), bits).T.contiguous()
    return found


class PackedLinear(Kept):
    """x @ W^T (+ bias) with W packed; its gradient flows to x, never to W.

    In float32 and float16 it unpacks a block of rows at a time and multiplies, exactly. In bfloat16 on a CPU, 4-bit
    layers run small batches in PyTorch's int4 kernel; for that a second copy in the kernel's order, with scales in
    bfloat16, is made at the first such call (`bits` more per weight).

    Attributes:
        weight_packed: int32 (N, W).
        weight_scale: floating (N, G).
        weight_zero_point: int32 (ceil(N * bits / 32), G), or None when codes are symmetric.
        weight_shape: int64 (N, K).
    """

    form: ClassVar[str] = "packed"
    products: ClassVar[tuple[Product, ...]] = (Product("int4pack kernel (CPU, bfloat16)", _serves, _prepare, _multiply),)

    weight_packed: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor | None
    weight_shape: Tensor

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
        outputs, groups = packed_NW.shape[0], scale_NG.shape[1]
        expected = (outputs, -(-inputs * bits // 32))
        if not 2 <= bits <= 8 or packed_NW.shape != expected or scale_NG.shape[0] != outputs or inputs % groups:
            raise ValueError(
                f"{bits}-bit weights of {outputs} x {inputs} are packed as {expected}, in groups that divide "
                f"{inputs}; got {tuple(packed_NW.shape)} with scales {tuple(scale_NG.shape)}"
            )
        if zero_packed is not None and zero_packed.shape != (-(-outputs * bits // 32), groups):
            raise ValueError(f"zeros of {outputs} x {groups} can't be packed as {tuple(zero_packed.shape)}")
        names = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "bias")
        shape = torch.tensor([outputs, inputs])
        super().__init__(outputs, inputs, dict(zip(names, (packed_NW, scale_NG, zero_packed, shape, bias_N))))
        self.bits, self.group_size = bits, inputs // groups

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
        """Of codes; arguments as `packed` has them."""
        tensors = packed(codes_NK, scale_NG, zero_NG, bits, group_size)
        return cls.built(tensors | ({} if bias_N is None else {"bias": bias_N}), bits)

    def codes(self, first: int = 0, last: int | None = None) -> Tensor:
        """The codes of output rows `first` to `last`, int8."""
        return unpack(self.weight_packed[first:last], self.bits, self.in_features)

    def zeros(self) -> Tensor | None:
        """The zeros, int8 (N, G), or None when codes are symmetric."""
        if self.weight_zero_point is None:
            return None
        return unpack(self.weight_zero_point.T, self.bits, self.out_features).T

    def weight_rows(self, first: int = 0, last: int | None = None) -> Tensor:
        """The weight's rows `first` to `last`, float32 (N, K): (code - zero) * scale, without further rounding."""
        codes = self.codes(first, last).view(-1, self.weight_scale.shape[1], self.group_size).float()
        zeros = self.zeros()
        if zeros is not None:
            codes -= zeros[first:last, :, None].float()
        return (codes * self.weight_scale[first:last, :, None].float()).view(-1, self.in_features)

    def settings(self) -> dict[str, Any]:
        return {"bits": self.bits}

    @classmethod
    def built(cls, tensors: dict[str, Tensor], bits: int) -> PackedLinear:
        """From its buffers.

        Raises:
            ValueError: shapes that don't belong together.
        """
        inputs = int(tensors["weight_shape"][1])
        zeros = tensors.get("weight_zero_point")
        return cls(tensors["weight_packed"], tensors["weight_scale"], zeros, inputs, bits, tensors.get("bias"))

    def extra_repr(self) -> str:
        zeros = "symmetric" if self.weight_zero_point is None else "with zeros"
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, group_size={self.group_size}, {zeros}"
