"""Packed layers: the bits, the product, the gradient, the kernel."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.model import PackedLinear
from shoestring.model.forms.bits import pack, unpack


def parts(bits: int, group: int, zeros: bool, rows: int = 48, inputs: int = 64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(bits)
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    codes = torch.randint(low, high, (rows, inputs), generator=generator)
    scale = torch.rand(rows, inputs // group, generator=generator) * 0.02 + 0.001
    return codes, scale, torch.randint(low, high, scale.shape, generator=generator) if zeros else None


def naive(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None) -> torch.Tensor:
    group = codes.shape[1] // scale.shape[1]
    shifted = codes.double() if zero is None else codes.double() - zero.double().repeat_interleave(group, 1)
    return shifted * scale.double().repeat_interleave(group, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(1, 7), st.integers(1, 100), st.integers(0, 10_000))
def test_packing_comes_back(bits: int, rows: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), (rows, count), generator=generator, dtype=torch.int8)
    words = pack(codes, bits)
    assert words.shape == (rows, -(-count * bits // 32))
    assert torch.equal(unpack(words, bits, count), codes)


@pytest.mark.parametrize("bits", range(2, 9))
def test_bits_lie_where_compressed_tensors_puts_them(bits: int) -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = parts(bits, 33, False, 7, 33)[0].to(torch.int8)
    assert torch.equal(pack(codes, bits), helpers.pack_to_int32(codes, bits))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("bits", "group"), [(2, 16), (3, 64), (4, 32), (4, 64), (5, 8), (8, 64)])
def test_the_product_is_that_of_the_unpacked_weight(bits: int, group: int, zeros: bool) -> None:
    codes, scale, zero = parts(bits, group, zeros)
    bias = torch.randn(48, generator=torch.Generator().manual_seed(0))
    layer = PackedLinear.from_parts(codes, scale, zero, bits, group, bias)
    weight = naive(codes, scale, zero)
    torch.testing.assert_close(layer.weight_rows().double(), weight, atol=0, rtol=1e-7)
    assert torch.equal(layer.weight_rows(5, 9), layer.weight_rows()[5:9])
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(x).double(), x.double() @ weight.T + bias.double(), atol=1e-5, rtol=1e-5)
    assert layer.backend == "unpack and multiply (cpu, float32)"


def test_the_gradient_flows_to_the_input() -> None:
    codes, scale, zero = parts(4, 32, True)
    layer = PackedLinear.from_parts(codes, scale, zero, 4, 32)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    layer(x).square().sum().backward()
    weight = naive(codes, scale, zero)
    wanted = 2 * (x.detach().double() @ weight.T) @ weight
    torch.testing.assert_close(x.grad.double(), wanted, atol=1e-5, rtol=1e-4)
    assert not list(layer.parameters())


@pytest.mark.skipif(not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"), reason="this PyTorch has no int4 kernel")
@pytest.mark.parametrize("group", [32, 64, 512])
def test_the_kernel_agrees_with_unpacking(group: int) -> None:
    codes, scale, zero = parts(4, group, True, 48, 512)
    layer = PackedLinear.from_parts(codes, scale, zero, 4, group)
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = x.double() @ naive(codes, scale, zero).T
    got = layer(x)
    assert "int4pack" in layer.backend
    assert (got.double() - exact).abs().max() < 0.01 * exact.abs().max()
    # The kernel's copy follows the buffers.
    layer.load_state_dict({**layer.state_dict(), "weight_scale": scale * 2})
    assert (layer(x).double() - 2 * exact).abs().max() < 0.02 * exact.abs().max()
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_it_is_small() -> None:
    codes, scale, zero = parts(4, 64, True, 64, 128)
    layer = PackedLinear.from_parts(codes, scale.half(), zero, 4, 64)
    assert layer.bits_per_weight == 4 + (16 + 4) / 64
    weights = {k: v.nbytes for k, v in layer.state_dict().items()}
    assert weights["weight_packed"] == 64 * 128 // 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codes_NK": torch.full((4, 8), 8)}, "codes of 4 bits lie in -8 to 7"),
        ({"group_size": 3}, "groups of 3"),
        ({"scale_NG": torch.ones(3, 2)}, "scales"),
        ({"zero_NG": torch.full((4, 2), 9)}, "zeros of 4 bits"),
    ],
)
def test_parts_that_don_t_belong_together(change: dict, said: str) -> None:
    whole = {"codes_NK": torch.zeros(4, 8), "scale_NG": torch.ones(4, 2), "zero_NG": None, "bits": 4, "group_size": 4}
    with pytest.raises(ValueError, match=said):
        PackedLinear.from_parts(**{**whole, **change})
