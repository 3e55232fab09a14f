"""Peak memory as predicted: the process counts once in every step, and in no step twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring.measure import Hardware, find
from shoestring.recipe import load_recipe, predict

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
MORE = 1e9


def machine(device: str, process: float) -> Hardware:
    return find(device).with_(memory=1e12, reached={"process.bytes": process})


def peaks(recipe: Path, hardware: Hardware) -> dict[str, float]:
    loaded = load_recipe(recipe, ["budget.memory=1 TB"])
    return {forecast.step.name: forecast.usage.peak_memory.value or 0.0 for forecast in predict(loaded, hardware)}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_larger_process_makes_every_peak_larger_by_as_much(recipe: Path) -> None:
    small, large = peaks(recipe, machine("cpu", MORE)), peaks(recipe, machine("cpu", 2 * MORE))
    assert {name: round(large[name] - small[name]) for name in small} == dict.fromkeys(small, round(MORE))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_on_a_gpu_the_process_is_not_in_the_peak(recipe: Path) -> None:
    assert peaks(recipe, machine("h200", MORE)) == peaks(recipe, machine("h200", 2 * MORE))
