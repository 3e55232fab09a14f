"""The grid and rounding to nearest."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.compress import GPTQ, RTN, grid
from shoestring.compress.rtn import round_to_nearest
from shoestring.errors import SettingError
from shoestring.measure import Hardware
from shoestring.model import PackedLinear, Transformer
from shoestring.technique import Sketch


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    group=st.sampled_from([4, 8, 24]),
    symmetric=st.booleans(),
    size=st.floats(1e-3, 1e3),
    seed=st.integers(0, 10_000),
)
def test_rounding_loses_at_most_half_a_step(bits: int, group: int, symmetric: bool, size: float, seed: int) -> None:
    weight = torch.randn(5, 24, generator=torch.Generator().manual_seed(seed)) * size
    codes, points = round_to_nearest(weight, bits, group, symmetric)
    lost = (points.values(codes) - weight).abs().unflatten(1, (-1, group))
    # Half a step, and what rounding scales to bfloat16 moves the ends by: 2^-8 of at most 2^bits steps.
    step = points.scales_OG[..., None].abs()
    bound = step * (0.5 + 2**bits * 2**-8 + 1e-4)
    if symmetric:  # the end without the extreme lacks a code: up to one step is lost there
        opposite = weight.unflatten(1, (-1, group)) / points.scales_OG[..., None] > points.highest
        bound = torch.where(opposite, step * (1 + 2**bits * 2**-8 + 1e-4), bound)
    assert (lost <= bound).all()
    assert codes.min() >= points.lowest
    assert codes.max() <= points.highest


@pytest.mark.parametrize("symmetric", [True, False])
def test_zero_stays_zero(symmetric: bool) -> None:
    weight = torch.rand(8, 32) + 0.5  # all positive: an asymmetric grid would not hold zero by itself
    weight[:, ::3] = 0.0
    codes, points = round_to_nearest(weight, 3, 16, symmetric)
    assert (points.values(codes)[:, ::3] == 0).all()


def test_a_group_of_zeros_is_exact() -> None:
    codes, points = round_to_nearest(torch.zeros(3, 8), 4, 4)
    assert (points.values(codes) == 0).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_searching_never_loses(symmetric: bool) -> None:
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) ** 3
    importance = torch.linspace(0.1, 5, 64)
    for weighting in (None, importance):
        factor = 1.0 if weighting is None else weighting
        plain, searched = (
            ((points.values(points.codes(weight)) - weight).square() * factor).sum()
            for points in (grid.fit(weight, 3, 16, symmetric, search, weighting) for search in ("none", "mse"))
        )
        assert searched < plain


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_packed_layers_hold_exactly_the_codes(model: Transformer, bits: int, symmetric: bool) -> None:
    before = {name: module.weight.detach().clone() for name, module in model.matrices()}
    report = RTN(bits=bits, group_size=32, symmetric=symmetric).apply_to(model)
    for name, module in model.matrices():
        assert isinstance(module, PackedLinear)
        codes, points = round_to_nearest(before[name], bits, 32, symmetric)
        assert torch.equal(module.weight_rows(), points.values(codes))
    extra = 16 if symmetric else 16 + bits
    assert report["bits_per_weight"] == pytest.approx(bits + extra / 32, rel=0.02)


def test_one_group_to_each_output(model: Transformer) -> None:
    RTN(bits=8, group_size=-1).apply_to(model)
    assert all(module.group_size == module.in_features for _, module in model.matrices())


def shaped(width: int, inner: int) -> Transformer:
    config = ModelConfig(vocabulary=50, width=width, layers=1, heads=4, kv_heads=2, feed_forward_width=inner, context=16)
    return Transformer(config).initialise()


@pytest.mark.parametrize(
    ("width", "inner", "advice"), [(72, 192, "use -1"), (96, 192, "use 32 or -1"), (192, 384, "use 64 or 32 or -1")]
)
def test_a_group_size_that_does_not_divide_is_refused_with_usual_ones(width: int, inner: int, advice: str) -> None:
    model = shaped(width, inner)
    with pytest.raises(SettingError, match=rf"rtn\.group_size: 80 does not divide.*{width}.*mixer\.query.*{advice}"):
        RTN(group_size=80).apply_to(model)
    assert not any(isinstance(module, PackedLinear) for _, module in model.matrices())


@pytest.mark.parametrize(("width", "inner", "size"), [(128, 256, 128), (192, 512, 64), (128, 160, 32), (72, 192, -1)])
def test_the_group_size_follows_from_the_model(width: int, inner: int, size: int, hardware: Hardware) -> None:
    model = shaped(width, inner)
    said: list[str] = []
    report = RTN().apply_to(model, note=said.append)
    assert report["settings"]["group_size"] == size
    assert ("one group to each output" if size == -1 else f"groups of {size}") in said[0]
    for _, module in model.matrices():
        assert module.group_size == (module.in_features if size == -1 else size)
    predicted = RTN().predict(Sketch(model=model.config), hardware).sketch
    assert predicted.bits_per_weight == pytest.approx(report["bits_per_weight"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bits": 4, "group_size": 32}, None),
        ({"bits": 8, "group_size": -1}, None),
        ({"bits": 4, "group_size": 16}, "groups of 128, 64, 32, not 16"),
        ({"bits": 3, "group_size": 32}, r"0\.18 or newer.*4 and 8 bits only"),
        ({"bits": 2, "group_size": 32}, "rtn: vLLM's own kernels have 4 and 8 bits only"),
    ],
)
def test_what_does_not_read_a_result_is_noted(model: Transformer, settings: dict[str, int], said: str | None) -> None:
    notes: list[str] = []
    RTN(**settings).apply_to(model, note=notes.append)
    assert len(notes) == (said is not None)
    assert said is None or re.search(said, notes[0])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("search", ["none", "mse"])
def test_positive_scales(bits: int, search: grid.Search) -> None:
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    signed, positive = (grid.fit(weight, bits, 8, True, search, signs=signs) for signs in ("signed", "positive"))
    assert (signed.scales_OG < 0).any()
    assert (positive.scales_OG > 0).all()
    lost = (positive.values(positive.codes(weight)) - weight).abs().unflatten(1, (-1, 8))
    clipped = 0.5 if search == "none" else 2.0**bits
    assert (lost <= positive.scales_OG[..., None] * (clipped + 0.01 * 2**bits)).all()


def test_positive_scales_of_a_model(model: Transformer, calibration: Tensor) -> None:
    for technique in (RTN(group_size=32, scales="positive"), GPTQ(group_size=32, scales="positive")):
        changed = copy.deepcopy(model)
        technique.apply_to(changed, calibration)
        assert all((module.weight_scale > 0).all() for _, module in changed.matrices())


@pytest.mark.parametrize("wrong", [{"bits": 1}, {"bits": 9}, {"group_size": 0}, {"group_size": -2}, {"search": "best"}])
def test_bad_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        RTN(**wrong)


def test_what_is_packed_is_not_packed_again(model: Transformer) -> None:
    RTN(group_size=32).apply_to(model)
    with pytest.raises(SettingError, match="quantized already"):
        RTN(group_size=32).apply_to(model)
