"""Pruning: exact counts, patterns, Wanda against a plain version."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.compress import Magnitude, Wanda, prune
from shoestring.errors import SettingError
from shoestring.model import Transformer

RUNS = pytest.mark.parametrize("pattern", [name for name, run in prune.PATTERNS.items() if run])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(2, 40),
    sparsity=st.floats(0.01, 0.99),
    scope=st.sampled_from(["row", "layer"]),
    levels=st.integers(1, 5),
)
def test_the_share_is_exact_even_with_ties(rows: int, columns: int, sparsity: float, scope: str, levels: int) -> None:
    score = torch.randint(0, levels, (rows, columns)).float()
    kept = prune.keep(score, sparsity, scope=scope)
    if scope == "row":
        assert ((~kept).sum(1) == int(sparsity * columns + 1e-9)).all()
    else:
        assert (~kept).sum() == int(sparsity * rows * columns + 1e-9)
        kept, score = kept.view(1, -1), score.view(1, -1)
    for row, mask in zip(score, kept):
        if mask.any() and not mask.all():
            assert row[mask].min() >= row[~mask].max()


@RUNS
def test_patterns_keep_the_best_of_each_run(pattern: str) -> None:
    kept, size = map(int, pattern.split(":"))
    score = torch.rand(6, 32)
    mask = prune.keep(score, 0.5, pattern)
    runs, worth = mask.unflatten(1, (-1, size)), score.unflatten(1, (-1, size))
    assert (runs.sum(-1) == kept).all()
    expected = torch.zeros_like(runs).scatter(-1, worth.argsort(-1, descending=True)[..., :kept], True)
    assert torch.equal(runs, expected)


def test_wanda_equals_a_plain_version(model: Transformer, calibration: Tensor) -> None:
    """Block by block, matrix by matrix, with inputs caught from separate passes over the model as pruned so far."""
    import copy

    plain = copy.deepcopy(model)
    Wanda(sparsity=0.4, precision="fp32").apply_to(model, calibration)
    for _, module in plain.matrices():
        caught: list[Tensor] = []
        hook = module.register_forward_pre_hook(lambda _, arguments, caught=caught: caught.append(arguments[0]))
        with torch.no_grad():
            plain(calibration)
        hook.remove()
        norms = caught[0].double().flatten(0, 1).square().sum(0).sqrt()
        weight = module.weight.data
        for row in weight:
            row[(row.double().abs() * norms).argsort()[: int(0.4 * weight.shape[1])]] = 0
    ours, theirs = dict(model.matrices()), dict(plain.matrices())
    for name, module in theirs.items():
        assert torch.equal(ours[name].weight, module.weight), name


@RUNS
@pytest.mark.parametrize("kind", [Wanda, Magnitude])
def test_patterns_in_a_model(model: Transformer, calibration: Tensor, pattern: str, kind: type) -> None:
    report = kind(pattern=pattern).apply_to(model, calibration)
    kept, size = map(int, pattern.split(":"))
    assert report["sparsity"] == 1 - kept / size
    for _, module in model.matrices():
        assert ((module.weight != 0).unflatten(1, (-1, size)).sum(-1) == kept).all()


def test_magnitude_by_row_and_by_layer(model: Transformer) -> None:
    before = {name: module.weight.detach().clone() for name, module in model.matrices()}
    report = Magnitude(sparsity=0.25, scope="row").apply_to(model)
    assert report["sparsity"] == 0.25
    for name, module in model.matrices():
        assert ((module.weight == 0).sum(1) == module.in_features // 4).all()
        kept = module.weight != 0
        assert torch.equal(module.weight[kept], before[name][kept])


def test_pruning_further_keeps_the_zeros(model: Transformer, calibration: Tensor) -> None:
    Magnitude(sparsity=0.3).apply_to(model)
    before = {name: module.weight == 0 for name, module in model.matrices()}
    Wanda(sparsity=0.6).apply_to(model, calibration)
    assert all((module.weight[before[name]] == 0).all() for name, module in model.matrices())


@pytest.mark.parametrize("kind", [Wanda, Magnitude])
@pytest.mark.parametrize("wrong", [{"sparsity": 0}, {"sparsity": 1.0}, {"sparsity": 0.3, "pattern": "2:4"}, {"pattern": "3:4"}])
def test_bad_settings(kind: type, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        kind(**wrong)


def test_a_pattern_that_does_not_fit_is_refused() -> None:
    config = ModelConfig(vocabulary=50, width=36, layers=1, heads=3, kv_heads=1, feed_forward_width=60, context=16)
    with pytest.raises(SettingError, match=r"wanda\.pattern: 4:8 needs inputs in runs of 8"):
        Wanda(pattern="4:8", length=16).apply_to(Transformer(config).initialise(), torch.zeros(1, 4, dtype=torch.long))
