"""NaN and infinity are refused where they come in, with the tensor named; nothing that is not finite is installed."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from shoestring.compress import GPTQ, RTN, Magnitude, Wanda, grid
from shoestring.compress.base import Compression
from shoestring.compress.factor import factor
from shoestring.compress.walk import Live, walk
from shoestring.errors import NotFinite
from shoestring.model import Transformer
from tests.compress.test_compress_walk import Watching

ALL = [RTN(group_size=32), GPTQ(group_size=32), Wanda(), Magnitude()]
BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("technique", ALL, ids=lambda technique: technique.name)
@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["blocks.1.feed_forward.down.weight", "blocks.0.mixer_norm.weight", "embedding.weight"])
def test_a_weight_that_is_not_finite_is_named(
    model: Transformer, calibration: Tensor, technique: Compression, value: float, name: str
) -> None:
    with torch.no_grad():
        model.get_parameter(name).flatten()[3] = value
    before = copy.deepcopy(model)
    with pytest.raises(NotFinite, match=rf"{technique.name}: {name}: 1 of [\d,]+ values are not finite"):
        technique.apply_to(model, calibration)  # type: ignore[attr-defined]
    for (_, ours), (_, theirs) in zip(model.matrices(), before.matrices()):
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("technique", [GPTQ(group_size=32), Wanda()], ids=lambda technique: technique.name)
def test_activations_that_overflow_are_refused_at_the_matrix_that_meets_them(
    model: Transformer, calibration: Tensor, technique: Compression
) -> None:
    with torch.no_grad():
        model.blocks[1].mixer_norm.weight[0] = 1e38  # finite itself, its products with inputs are not when squared
    with pytest.raises(NotFinite, match=r"blocks\.1\.mixer\.query: what it multiplies: "):
        technique.apply_to(model, calibration)  # type: ignore[attr-defined]


def test_the_walk_refuses_for_any_method(model: Transformer, calibration: Tensor) -> None:
    for factor_, message in ((math.nan, "its weight"), (math.inf, "its weight")):
        with pytest.raises(NotFinite, match=rf"blocks\.0\.mixer\.query: {message}"):
            walk(Live(copy.deepcopy(model)), calibration, Watching(factor_))
    with torch.no_grad():
        model.blocks[0].feed_forward.up.weight[0, 0] = math.nan
    with pytest.raises(NotFinite, match=r"blocks\.0\.feed_forward\.up: 1 of"):
        walk(Live(model), calibration, Watching())


@pytest.mark.parametrize("value", BAD)
def test_factoring_ends(value: float) -> None:
    gram_II = torch.eye(8)
    gram_II[2, 3] = gram_II[3, 2] = value
    with pytest.raises(NotFinite, match="Gram matrix"):
        factor(gram_II)


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-37, 1e30, 1e38])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_of_any_size_have_a_finite_grid(size: float, symmetric: bool) -> None:
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).clamp(-1.5, 1.5) * size
    points = grid.fit(weight, 4, 8, symmetric, "mse")
    assert torch.isfinite(points.scales_OG.reciprocal()).all()
    assert torch.isfinite(points.values(points.codes(weight))).all()
