"""Plan as a step, its settings and a law of one's own deciding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoestring.errors import BudgetError
from shoestring.measure import Meter, Usage, find
from shoestring.plan import LAWS, Plan, fit_law
from shoestring.plan.technique import read_law
from shoestring.technique import Budget, Sketch, Task, Watch
from shoestring.train import TrainingPlan
from shoestring.train.cost import training_usage
from tests.plan.later import outlook

CPU = find("cpu")


def rest(candidate: Sketch) -> Usage:
    """Only the training comes after the plan."""
    plan = candidate.plan
    assert isinstance(plan, TrainingPlan)
    return training_usage(plan.model, plan.steps, plan.batch, plan.context, plan.precision, CPU, micro_batch=plan.micro_batch)


KNOWN = Sketch(vocabulary=512, tokens=3e6, outlook=outlook(Budget(time=120.0, memory=4e9), rest))


def test_the_same_bytes_are_written_twice(tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        task, watch = Task(tmp_path / name, tmp_path / "scratch", CPU, sketch=KNOWN), Watch(Meter(CPU), lambda text: None)
        place = Plan().apply({"tokens": tmp_path}, task, watch)["plan"]
        assert place is not None
        written.append((place / "plan.json").read_bytes())
    assert written[0] == written[1]


def test_settings_are_followed() -> None:
    plan = Plan(context=64, batch=8, smallest=96, largest=96, query_groups=3, precision="bf16", epochs=1.0)
    decided = plan.decide(KNOWN, CPU)
    assert (decided.context, decided.batch, decided.precision) == (64, 8, "bf16")
    assert decided.model.width == 96
    assert decided.model.flat.heads == 3 * decided.model.flat.kv_heads
    assert decided.tokens <= 3e6
    assert Plan().decide(KNOWN, CPU).seconds <= 0.88 * 120
    assert Plan(reserve=0.5).decide(KNOWN, CPU).seconds <= 0.5 * 120


def test_a_law_of_ones_own_decides(tmp_path: Path) -> None:
    sizes = [(N, D) for N in (1e8, 3e8, 1e9, 4e9) for D in (2e9, 1e10, 9e10)]
    found = fit_law([N for N, _ in sizes], [D for _, D in sizes], [LAWS["hoffmann"].loss(N, D) for N, D in sizes])
    file = tmp_path / "law.json"
    file.write_text(json.dumps(found.to_json()))  # what `shoestring plan fit RUNS.csv --json` prints
    assert read_law(str(file)).alpha == pytest.approx(0.34, rel=1e-3)
    assert read_law(str(file)).smallest_parameters == 1e8
    mine, published = Plan(law=str(file)), Plan(law="hoffmann")
    decided = mine.decide(KNOWN, CPU)
    assert (decided.model, decided.tokens) == (published.decide(KNOWN, CPU).model, published.decide(KNOWN, CPU).tokens)
    assert any("law.json" in str(formula["source"]) for formula in decided.formulas)
    assert mine.outside() != published.outside()


def test_what_is_left_decides() -> None:
    with pytest.raises(BudgetError, match=r"budget\.time"):
        Plan().decide(KNOWN.with_(outlook=outlook(Budget(time=0.01), rest)), CPU)
    less, more = (Plan().decide(KNOWN.with_(outlook=outlook(Budget(time=seconds), rest)), CPU) for seconds in (30.0, 300.0))
    assert less.tokens < more.tokens
