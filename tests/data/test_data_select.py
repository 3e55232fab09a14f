"""Scores that travel, and rules that select by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shoestring.data import Corpus, Select, scores
from shoestring.data.documents import read
from shoestring.data.rules import RULES, Scored
from shoestring.errors import FileError, SettingError
from shoestring.technique import State, Task, Watch, configure

LENGTHS = (30, 10, 50, 20, 40)


@pytest.fixture
def scored(tmp_path: Path, work: Callable[[str], tuple[Task, Watch]]) -> State:
    """A corpus of five documents whose score is their length, and an embedding."""
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id": "d{n}", "text": "{"x" * n}"}}\n' for n in LENGTHS))
    state = Corpus(source=str(tmp_path / "in.jsonl")).apply({}, *work("corpus"))
    found = [batch.to_pydict() for batch in read(state["corpus"], ("id", "text"))]
    length = ((each["id"], [float(len(text)) for text in each["text"]]) for each in found)
    state = scores.write(state, work("one")[0], "length", length, by="a test")
    angles = ((each["id"], [[float(len(text) // 30), 1.0] for text in each["text"]]) for each in found)
    return scores.write(state, work("two")[0], "angle", angles, scores.EMBEDDING)


def lengths(state: State) -> list[int]:
    return [len(text) for batch in read(state["corpus"], ("text",)) for text in batch.column("text").to_pylist()]


def test_scores_travel_together_and_are_read_in_any_order(scored: State) -> None:
    assert "scores" in scored
    assert scores.names(scored["scores"]) == ["angle", "length"]
    assert scores.numbers(scored["scores"]) == ["length"]
    ids = [id_ for batch in scores.read(scored["scores"], "length") for id_ in batch.column("id").to_pylist()]
    assert scores.values(scored["scores"], "length", reversed(ids)).tolist() == [40, 20, 50, 10, 30]
    assert scores.values(scored["scores"], "angle", ids[:2]).tolist() == [[1, 1], [0, 1]]
    assert np.isnan(scores.values(scored["scores"], "length", ["other"], every=False)).all()


def test_a_missing_score_is_one_line(scored: State) -> None:
    assert "scores" in scored
    with pytest.raises(FileError, match=r"no score called 'lenght'; did you mean 'length'"):
        scores.values(scored["scores"], "lenght", [])
    with pytest.raises(FileError, match=r"1 of 1 documents have no number as their score length, the first is 'other'"):
        scores.values(scored["scores"], "length", ["other"])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"rule": "threshold", "least": 20, "most": 40}, [30, 20, 40]),
        ({"rule": "top", "share": 0.2}, [10, 20]),
        ({"rule": "top", "share": 0.65, "prefer": "high"}, [50, 40]),
        ({"rule": "top", "megabytes": 61e-6}, [30, 10, 20]),
        ({"rule": "gumbel", "share": 0.2, "temperature": 1e-3}, [10, 20]),
        ({"rule": "semantic", "score": "angle"}, [30, 10]),
    ],
)
def test_a_rule_keeps(settings: dict, kept: list[int], scored: State, work: Callable[[str], tuple[Task, Watch]]) -> None:
    made = configure(Select, {"score": "length", **settings}, "select").apply(scored, *work("kept"))
    assert lengths(made) == kept
    assert made["scores"] == scored["scores"]


def test_a_draw_follows_the_weights_and_the_seed() -> None:
    settings = Select(score="length", rule="gumbel", share=0.5, prefer="high")
    values, sizes = np.log([1.0, 3.0]), np.ones(2)
    drawn = np.array([RULES["gumbel"](Scored(values, sizes, seed), settings) for seed in range(4000)])
    assert (drawn.sum(axis=1) == 1).all()
    assert abs(drawn[:, 1].mean() - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5
    assert (RULES["gumbel"](Scored(values, sizes, 7), settings) == drawn[7]).all()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_refuses_scores_of_the_other_kind_in_one_line(rule: str) -> None:
    settings = Select(rule=rule, least=0.0)
    values = np.ones(3) if rule == "semantic" else np.ones((3, 2))
    with pytest.raises(SettingError, match=r"select\.(rule|score): .*; (choose|name)"):
        RULES[rule](Scored(values, np.ones(3), 0), settings)


def test_a_threshold_needs_a_bound() -> None:
    with pytest.raises(SettingError, match="threshold needs a bound; set least, most, or both"):
        configure(Select, {"rule": "threshold"}, "select")
