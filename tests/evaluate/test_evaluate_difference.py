"""Paired differences of two evaluations: against the plain arithmetic, and as often right as promised."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shoestring.evaluate import Evaluate, differences
from shoestring.evaluate.difference import _share
from shoestring.model import Transformer, save
from shoestring.technique import Task, Watch
from shoestring.tokenizer import Tokenizer


def folder(place: Path, losses: list[float], sizes: list[int], **right: list[bool]) -> Path:
    place.mkdir()
    (place / "windows.json").write_text(json.dumps({"losses": losses, "bytes": sizes}))
    (place / "rows.json").write_text(json.dumps(right))
    return place


def test_windows_that_differ_a_lot_leave_a_sharp_difference(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    hard = generator.lognormal(5, 1, size=40)
    sizes = generator.integers(500, 900, size=40).tolist()
    after = hard + np.array(sizes) * generator.normal(0.05, 0.01, size=40)
    folders = folder(tmp_path / "a", hard.tolist(), sizes), folder(tmp_path / "b", after.tolist(), sizes)
    found = differences(*folders)["bits_per_byte"]
    assert found.value == pytest.approx((after - hard).sum() / sum(sizes) / math.log(2))
    low, high = found.interval or (0, 0)
    assert low < 0.05 / math.log(2) < high
    assert high - low < 0.02
    assert "paired over 40 windows, within these weights" in found.method


def test_what_was_not_measured_on_the_same_samples_is_left_out(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [1.0, 2.0], [3, 4], one=[True], two=[True, False])
    second = folder(tmp_path / "b", [1.0, 2.0], [3, 5], one=[True], two=[True])
    assert set(differences(first, second)) == {"one"}
    assert differences(first, tmp_path) == {}


def test_shares_are_paired_row_by_row_and_covered() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        before = generator.random(60) < 0.6
        after = np.where(generator.random(60) < 0.15, generator.random(60) < 0.4, before)
        found = _share(before.tolist(), after.tolist())
        low, high = found.interval or (0, 0)
        inside += low <= 0.15 * (0.4 - 0.6) <= high
    assert inside > 0.92 * 400
    same = _share([True] * 20, [True] * 20)
    assert same.value == 0.0
    assert same.interval is not None
    assert same.interval[0] < 0 < same.interval[1]


def test_two_evaluations_of_a_recipe_are_paired(
    checkpoint: Path,
    tokens: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    work: Callable[..., tuple[Task, Watch]],
) -> None:
    task = tmp_path / "copa.jsonl"
    rows = [{"query": "The cat", "choices": ["sat", "mat"], "gold": gold} for gold in (0, 1, 1)]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    step = Evaluate(context=32, windows=8, tasks=("bits_per_byte", str(task)))
    other = Transformer(model.config).initialise(9)
    save(other, tokenizer, tmp_path / "other")
    states = [
        step.apply({"checkpoint": place, "tokens": tokens}, *work(name))
        for name, place in (("one", checkpoint), ("two", tmp_path / "other"))
    ]
    found = differences(*(state["numbers"] for state in states))
    assert set(found) == {"bits_per_byte", "copa.accuracy", "copa.accuracy_normalised"}
    values = [json.loads((state["numbers"] / "numbers.json").read_text()) for state in states]
    for name, figure in found.items():
        assert figure.value == pytest.approx(values[1][name]["value"] - values[0][name]["value"], abs=1e-6)
