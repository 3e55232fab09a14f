"""The walk on a GPU gives what it gives on a CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from shoestring.compress import GPTQ, RTN, Magnitude, Wanda
from shoestring.model import Transformer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize(
    "technique",
    [GPTQ(bits=8, group_size=32, precision="fp32"), Wanda(precision="fp32"), RTN(group_size=32), Magnitude(pattern="2:4")],
    ids=lambda technique: technique.name,
)
def test_the_same_as_on_a_cpu(technique: GPTQ, model: Transformer, calibration: Tensor) -> None:
    theirs = copy.deepcopy(model).cuda()
    here = technique.apply_to(model, calibration)
    there = technique.apply_to(theirs, calibration)
    assert there["sparsity"] == pytest.approx(here["sparsity"], abs=0.01)
    assert there["bits_per_weight"] == here["bits_per_weight"]
    with torch.no_grad():
        expected, found = model(calibration), theirs(calibration.cuda()).cpu()
    assert (found - expected).square().mean() < 0.01 * expected.square().mean()


def test_in_bfloat16_with_pruned_zeros(model: Transformer, calibration: Tensor) -> None:
    model.cuda()
    Wanda().apply_to(model, calibration)
    report = GPTQ(group_size=32).apply_to(model, calibration)
    assert report["sparsity"] >= 0.5
    assert torch.isfinite(model(calibration.cuda())).all()
