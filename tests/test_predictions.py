"""Predictions that must not move by themselves: what a few steps take on machines of the catalogue, to six digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring.measure import find
from shoestring.recipe import load_recipe, predict

RECIPES = Path(__file__).parents[1] / "recipes"
STEPS = [
    ("cpu", "quickstart", "corpus", 3.63975, 0.0, 470.77e6),
    ("cpu", "quickstart", "tokenize", 3.561223, 0.0, 442.523185e6),
    ("cpu", "quickstart", "pretrain", 339.575683, 11.8317389e12, 457.293184e6),
    ("cpu", "quickstart", "distil", 44.8343695, 1.57136244e12, 785.959808e6),
    ("cpu", "shrink", "lora", 392.758873, 11.680497e12, 2.773678208e9),
    ("cpu", "shrink", "gptq", 166.568084, 6.27964379e12, 1.545517184e9),
    ("h200", "gpt2", "pretrain", 5050.11821, 1.99506244e18, 40.219935744e9),
    ("h200", "gpt2", "evaluate@pretrain", 2.13328975, 7.89999885e12, 3.21330688e9),
]


@pytest.mark.parametrize(("device", "recipe", "step", "seconds", "flops", "memory"), STEPS)
def test_a_step_is_predicted_as_before(device: str, recipe: str, step: str, seconds: float, flops: float, memory: float) -> None:
    hardware = find(device).with_(memory=1e12) if device == "cpu" else find(device)
    forecasts = predict(load_recipe(RECIPES / f"{recipe}.yaml", ["budget.memory=1 TB"]), hardware)
    usage = next(forecast.usage for forecast in forecasts if forecast.step.name == step)
    assert usage.seconds.value == pytest.approx(seconds, rel=1e-6)
    assert usage.flops.value == pytest.approx(flops, rel=1e-6)
    assert usage.peak_memory.value == pytest.approx(memory, rel=1e-6)
