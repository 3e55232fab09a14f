"""GPTQ against a naive version in float64, and its promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shoestring.compress import GPTQ, RTN, Magnitude, grid
from shoestring.compress.factor import factor
from shoestring.compress.gptq import energy, relative_error, round_columns, solve
from shoestring.compress.walk import gram, matrices
from shoestring.errors import SettingError
from shoestring.model import PackedLinear, Transformer


def problem(outputs: int = 24, inputs: int = 48, tokens: int = 300) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    mix = torch.randn(inputs, inputs, generator=generator) + 2 * torch.eye(inputs)
    x = torch.randn(tokens, inputs, generator=generator) @ mix * torch.linspace(0.1, 3, inputs)
    return torch.randn(outputs, inputs, generator=generator), gram(x)


def naive(weight: Tensor, gram_II: Tensor, points: grid.Grid, order: list[int], damping: float, keep: Tensor | None) -> Tensor:
    """Optimal brain quantization in a fixed order: after each column the inverse of what is left is computed anew."""
    work, hessian = weight.double().clone(), gram_II.double().clone()
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    size = weight.shape[1] // points.scales_OG.shape[1]
    codes = torch.zeros_like(weight, dtype=torch.int8)
    for place, column in enumerate(order):
        scale = points.scales_OG[:, column // size].double()
        zero = torch.zeros_like(scale) if points.zeros_OG is None else points.zeros_OG[:, column // size].double()
        code = ((work[:, column] / scale).round() + zero).clamp(points.lowest, points.highest)
        if keep is not None:
            code = torch.where(keep[:, column], code, zero)
        codes[:, column] = code.to(torch.int8)
        left = order[place:]
        inverse = torch.linalg.inv(hessian[left][:, left])
        error = (work[:, column] - (code - zero) * scale) / inverse[0, 0]
        work[:, left] -= error[:, None] * inverse[0]
    return codes


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("pruned", [True, False])
def test_equals_optimal_brain_quantization(act_order: bool, symmetric: bool, pruned: bool) -> None:
    weight, gram_II = problem()
    keep = None
    if pruned:
        keep = weight.abs() > 0.6
        weight = weight * keep
    points = grid.fit(weight, 4, 16, symmetric)
    order = gram_II.diagonal().argsort(descending=True, stable=True).tolist() if act_order else list(range(48))
    expected = naive(weight, gram_II, points, order, 0.01, keep)
    for block in (7, 16, 128):
        found = round_columns(weight, factor(gram_II, act_order, 0.01), points, keep, block)
        assert (found == expected).float().mean() > 0.995  # a tie may fall either way in float32
        if keep is not None:
            assert (points.values(found)[~keep] == 0).all()


def test_act_order_is_the_natural_order_of_permuted_columns() -> None:
    """With one static group, act-order means: permute, round in order, permute back."""
    weight, gram_II = problem()
    points = grid.fit(weight, 3, 48)
    order = gram_II.diagonal().argsort(descending=True, stable=True)
    turned = round_columns(weight[:, order], factor(gram_II[order][:, order], act_order=False), points)
    assert torch.equal(round_columns(weight, factor(gram_II), points)[:, order], turned)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_loses_less_than_rounding_to_nearest(bits: int) -> None:
    weight, gram_II = problem()
    points = grid.fit(weight, bits, 16)
    ours = points.values(round_columns(weight, factor(gram_II), points))
    nearest = points.values(points.codes(weight))
    assert relative_error(weight, ours, gram_II) < 0.8 * relative_error(weight, nearest, gram_II)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("pruned", [True, False])
def test_each_output_keeps_the_grid_that_loses_less_in_the_end(bits: int, symmetric: bool, pruned: bool) -> None:
    weight, gram_II = problem()
    keep = weight.abs() > 0.6 if pruned else None
    weight = weight if keep is None else weight * keep
    found = factor(gram_II)
    grids = [grid.fit(weight, bits, 16, symmetric, search, gram_II.diagonal()) for search in ("none", "mse")]
    alone = [energy(weight - points.values(round_columns(weight, found, points, keep)), gram_II) for points in grids]
    codes, points, error_O, kept_O = solve(weight, found, gram_II, grids, keep)
    torch.testing.assert_close(error_O, torch.minimum(*alone), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(energy(weight - points.values(codes), gram_II), error_O, rtol=1e-4, atol=1e-4)
    assert set(kept_O.tolist()) == {0, 1}  # here neither is the better one everywhere
    if keep is not None:
        assert (points.values(codes)[~keep] == 0).all()


def test_the_report_says_how_many_outputs_kept_the_search(model: Transformer, calibration: Tensor) -> None:
    import copy

    errors = {}
    for search in ("none", "mse", "best"):
        changed = copy.deepcopy(model)
        report = GPTQ(bits=2, group_size=32, search=search, precision="fp32").apply_to(changed, calibration)
        errors[search] = report["matrices"][0]["error"]
        assert all(("searched" in each) == (search == "best") for each in report["matrices"])
    assert 0 < report["matrices"][0]["searched"] < 1
    assert errors["best"] <= min(errors["none"], errors["mse"])


def test_inputs_that_never_fire_are_rounded_to_nearest() -> None:
    weight, gram_II = problem()
    gram_II[:, 5] = gram_II[5] = 0
    points = grid.fit(weight, 4, 16)
    found = round_columns(weight, factor(gram_II), points)
    assert torch.equal(found[:, 5], points.codes(weight)[:, 5])


def test_a_gram_matrix_that_float32_cannot_factor_is_factored_in_float64() -> None:
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) * 1e3  # rank 4 of 64
    found = factor(gram(x), damping=1e-9)
    assert found.double
    assert torch.isfinite(found.unit_II).all()
    assert not factor(gram(x), damping=0.01).double


def test_relative_error_is_that_of_outputs() -> None:
    x, weight = torch.randn(50, 8), torch.randn(3, 8)
    changed = weight + 0.1 * torch.randn(3, 8)
    expected = (x @ (weight - changed).T).square().sum() / (x @ weight.T).square().sum()
    assert relative_error(weight, changed, gram(x)) == pytest.approx(expected.item(), rel=1e-4)


def test_compresses_a_model(model: Transformer, calibration: Tensor) -> None:
    with torch.no_grad():
        wanted = model(calibration)
    import copy

    nearest = copy.deepcopy(model)
    RTN(bits=3, group_size=32).apply_to(nearest)
    report = GPTQ(bits=3, group_size=32).apply_to(model, calibration)
    with torch.no_grad():
        assert (model(calibration) - wanted).square().mean() < (nearest(calibration) - wanted).square().mean()
    assert all(isinstance(module, PackedLinear) for _, module in matrices(model))
    assert len(report["matrices"]) == 14
    assert report["bits_per_weight"] == pytest.approx(3.5)
    assert 0 < report["error"] < 0.1


def test_zeros_of_a_pruned_model_stay(model: Transformer, calibration: Tensor) -> None:
    Magnitude(sparsity=0.5).apply_to(model)
    masks = {name: module.weight == 0 for name, module in matrices(model)}
    report = GPTQ(group_size=32).apply_to(model, calibration)
    assert all(each["zeros_kept"] for each in report["matrices"])
    for name, module in matrices(model):
        assert (module.dequantize()[masks[name]] == 0).all()
    assert report["sparsity"] >= 0.5


def test_zeros_move_when_they_may(model: Transformer, calibration: Tensor) -> None:
    Magnitude(sparsity=0.3).apply_to(model)
    report = GPTQ(group_size=32, preserve_zeros=False).apply_to(model, calibration)
    assert not any(each["zeros_kept"] for each in report["matrices"])
    assert report["sparsity"] < 0.3


def test_settings_are_refused_before_the_walk(model: Transformer, calibration: Tensor) -> None:
    with pytest.raises(SettingError, match="use 64 or 32 or -1"):
        GPTQ(group_size=48).apply_to(model, calibration)
    with pytest.raises(SettingError, match="needs calibration"):
        GPTQ(group_size=32).apply_to(model)
    with pytest.raises(SettingError, match=r"gptq\.length"):
        GPTQ(group_size=32, length=65).tokens_of_each(model.config)
    with pytest.raises(SettingError, match="longer than the model attends over"):
        GPTQ(group_size=32).apply_to(model, calibration.repeat(1, 3))
    assert GPTQ().tokens_of_each(model.config) == 64
    for wrong in ({"damping": 0.0}, {"bits": 16}, {"block": 0}, {"preserve_zeros": "maybe"}, {"samples": 0}):
        with pytest.raises(ValueError):
            GPTQ(**wrong)
