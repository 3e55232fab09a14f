"""GPTQ against a naive version in float64, and its promises."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from shoestring.compress import GPTQ, RTN, Magnitude, grid
from shoestring.compress.factor import factor
from shoestring.compress.gptq import better, energy, relative_error, round_columns, solve
from shoestring.compress.walk import gram
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
def test_grids_tried_together_are_as_if_tried_alone(bits: int, symmetric: bool, pruned: bool) -> None:
    weight, gram_II = problem()
    keep = weight.abs() > 0.6 if pruned else None
    weight = weight if keep is None else weight * keep
    found = factor(gram_II)
    grids = [grid.fit(weight, bits, 16, symmetric, search, gram_II.diagonal()) for search in ("none", "mse")]
    for points, (codes, error_O) in zip(grids, solve(weight, found, gram_II, grids, keep)):
        alone = round_columns(weight, found, points, keep)
        assert (codes == alone).float().mean() > 0.995
        torch.testing.assert_close(error_O, energy(weight - points.values(codes), gram_II), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("errors", "kept"), [([0.5], 0), ([0.5, 0.4], 1), ([0.4, 0.5], 0), ([0.46, 0.5], 1), ([0.3, 0.2, 0.5], 1), ([0.0, 0.0], 1)]
)
def test_the_search_is_left_only_for_a_clearly_smaller_error(errors: list[float], kept: int) -> None:
    assert better(errors) == kept


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_report_says_which_grid_each_matrix_kept(model: Transformer, calibration: Tensor, bits: int) -> None:
    first = {}
    for search in ("none", "mse", "best"):
        settings = {"bits": bits, "group_size": 32, "search": search, "precision": "fp32"}
        report = GPTQ(**settings).apply_to(copy.deepcopy(model), calibration)
        first[search] = report["matrices"][0]  # later ones have other inputs
        assert all(each["search"] == search for each in report["matrices"] if search != "best")
    kept = first["best"]["search"]
    assert kept == ("none" if first["none"]["error"] < 0.9 * first["mse"]["error"] else "mse")
    assert first["best"]["error"] == pytest.approx(first[kept]["error"], rel=1e-3)


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
    nearest = copy.deepcopy(model)
    RTN(bits=3, group_size=32).apply_to(nearest)
    report = GPTQ(bits=3, group_size=32).apply_to(model, calibration)
    with torch.no_grad():
        assert (model(calibration) - wanted).square().mean() < (nearest(calibration) - wanted).square().mean()
    assert all(isinstance(module, PackedLinear) for _, module in model.matrices())
    assert len(report["matrices"]) == 14
    assert report["bits_per_weight"] == pytest.approx(3.5)
    assert 0 < report["error"] < 0.1


def test_zeros_of_a_pruned_model_stay(model: Transformer, calibration: Tensor) -> None:
    Magnitude(sparsity=0.5).apply_to(model)
    masks = {name: module.weight == 0 for name, module in model.matrices()}
    report = GPTQ(group_size=32).apply_to(model, calibration)
    assert all(each["zeros_kept"] for each in report["matrices"])
    for name, module in model.matrices():
        assert (module.weight_rows()[masks[name]] == 0).all()
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
