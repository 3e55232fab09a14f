"""Composition end to end: 2^3 runs of cheap techniques through the real runner, store and ledger; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from shoestring import artifact
from shoestring.errors import SettingError
from shoestring.explore import check, compose
from shoestring.explore import text as explore_text
from shoestring.measure import Hardware, Kind, Quantity, predicted_usage
from shoestring.recipe import Recipe, Step
from shoestring.technique import Prediction, Sketch, State, StepName, Task, Technique, Watch, need

SIZE, BITS = 4000, 2.0


class Cheap(Technique):
    """Shared by the techniques below: they cost nothing, and say so."""

    room: ClassVar[str] = "compress"
    row: ClassVar[str] = "R7"

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        return Prediction(predicted_usage(seconds=0.01, hardware=hardware, flops=1e6), sketch)


class Make(Cheap):
    """A model: a size and a quality."""

    name: ClassVar[str] = "make"
    gives: ClassVar[str] = "checkpoint"

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        return {**state, "checkpoint": write_model(task, SIZE, BITS + task.seed / 100, [])}


class Change(Cheap):
    """Multiplies size and bits; two that are called a and b together cost 10 % more bits."""

    name: ClassVar[str] = "change"
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    gives: ClassVar[str] = "checkpoint"
    kind: Literal["a", "b", "c"] = "a"
    size: float = 1.0
    bits: float = 1.0
    teacher: StepName | None = None

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        place = need(state, "checkpoint", self.name)
        model = json.loads((place / "model.json").read_text("utf-8"))
        watch.meter.count(flops=1e6)
        applied = [*model["applied"], self.kind]
        extra = 1.1 if {"a", "b"} <= set(applied) and self.kind in "ab" else 1.0
        out = write_model(task, round(model["size"] * self.size), model["bits"] * self.bits * extra, applied)
        return {**state, "checkpoint": out}


class Judge(Cheap):
    """Reads the quality off the model."""

    name: ClassVar[str] = "judge"
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    gives: ClassVar[str] = "numbers"

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        bits = json.loads((need(state, "checkpoint", self.name) / "model.json").read_text("utf-8"))["bits"]
        figure = Quantity(bits, "bit/B", Kind.MEASURED, "", (bits * 0.99, bits * 1.01))
        with artifact.writing(task.out, "numbers") as draft:
            (draft / "numbers.json").write_text(json.dumps({"bits_per_byte": figure.to_json()}), "utf-8")
        return {**state, "numbers": task.out}


def write_model(task: Task, size: int, bits: float, applied: list[str]) -> Path:
    record = json.dumps({"size": size, "bits": bits, "applied": applied}).ljust(200)
    with artifact.writing(task.out, "checkpoint") as draft:
        (draft / "model.json").write_text(record, "utf-8")
        (draft / "weights.bin").write_bytes(b"\0" * (size - len(record)))
    return task.out


def recipe(**changes: Technique) -> Recipe:
    made: dict[str, Technique] = {
        "make": Make(),
        "prune": Change(kind="a", size=0.5, bits=1.2),
        "heal": Change(kind="c", bits=0.9),
        "quantize": Change(kind="b", size=0.25, bits=1.05),
    } | changes
    steps = []
    for name, technique in made.items():
        steps.append(Step(name, technique))
        if technique.gives == "checkpoint":
            steps.append(Step(f"evaluate@{name}", Judge(), automatic=True))
    return Recipe("tiny", tuple(steps), device="cpu")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("compose") / "out"
    said: list[str] = []
    compose(recipe(), ["quantize", "prune", "heal"], out, observer=Listener(said))
    record = json.loads((out / "compose.json").read_text("utf-8"))
    assert [line.split(":")[0] for line in said if line.startswith("run ")] == [f"run {n} of 8" for n in range(1, 9)]
    return out, record


class Listener:
    """A watch that keeps the notes."""

    def __init__(self, said: list[str]) -> None:
        self.note = said.append

    def progress(self, text: str, done: float | None = None) -> None: ...
    def begin(self, step: Step, number: int, of: int, forecast: object) -> None: ...
    def end(self, row: object) -> None: ...


def test_eight_runs_share_what_they_have_in_common(composed: tuple[Path, dict]) -> None:
    out, record = composed
    assert record["factors"] == ["prune", "heal", "quantize"]  # the recipe's order
    assert len(record["cells"]) == 8
    # Distinct artifacts: models after make, prune x heal x quantize prefixes: 1 + 1 + 2 + 4, each with its evaluation.
    assert record["computed"] == record["distinct"] == 16
    assert record["computed"] + record["reused"] == sum(cell["steps"] for cell in record["cells"]) == 2 * (8 + 12)
    assert record["cells"][0]["present"] == ["prune", "heal", "quantize"]
    assert all((out / cell["run"] / "ledger.jsonl").exists() for cell in record["cells"])
    assert (out.parent / "store").exists()


def test_planted_gains_and_interaction_come_back(composed: tuple[Path, dict]) -> None:
    found = {entry["figure"]: entry for entry in composed[1]["combinations"]}
    bits, disk = found["bits_per_byte"], found["disk"]
    assert bits["baseline"] == pytest.approx(BITS)
    assert bits["gains"] == pytest.approx({"prune": 1.2, "heal": 0.9, "quantize": 1.05})
    assert bits["interaction"] == pytest.approx(1.1)
    assert bits["interval"][0] < 1.1 < bits["interval"][1]
    assert "standard error" in bits["method"]
    assert disk["gains"] == pytest.approx({"prune": 0.5, "heal": 1.0, "quantize": 0.25})
    assert disk["interaction"] == pytest.approx(1)
    assert disk["interval"] == pytest.approx([1, 1])
    pair = next(e for e in composed[1]["effects"] if e["figure"] == "bits_per_byte" and e["factors"] == ["prune", "quantize"])
    assert pair["ratio"] == pytest.approx(1.1**0.5)


def test_costs_count_every_step_wherever_it_came_from(composed: tuple[Path, dict]) -> None:
    cells = {tuple(cell["present"]): cell["figures"] for cell in composed[1]["cells"]}
    assert cells["prune", "heal", "quantize"]["flops"]["value"] == 3e6
    assert cells["heal",]["flops"]["value"] == 1e6
    assert all(figures["seconds"]["value"] > 0 for figures in cells.values())
    # The baseline counts no operations: its FLOPs are unknown, and so is any ratio to them.
    assert composed[1]["missing"]["flops"].startswith("unknown for the baseline")


def test_a_second_time_everything_comes_from_the_store_and_the_table_fits_100_columns(composed: tuple[Path, dict]) -> None:
    out, record = composed
    again = compose(recipe(), ["prune", "heal", "quantize"], out)
    assert again.computed == 0
    assert again.distinct == 16
    assert json.loads(json.dumps(again.to_json()))["combinations"] == record["combinations"]
    text = explore_text(again)
    # The lines about intervals may be long, the tables not.
    tables = text.split("\n\n")[:2]
    assert max(len(line) for table in tables for line in table.splitlines()) <= 100
    assert "prune alone" in text
    assert "×1.100" in text
    assert "prune × quantize" in text


def test_repeats_are_seeds_and_give_bootstrap_intervals(tmp_path: Path) -> None:
    found = compose(recipe(), ["prune"], tmp_path / "out", repeats=2)
    assert {trial.seed for trial in found.trials} == {0, 1}
    assert len(found.trials) == 4
    bits = next(c for c in found.combinations if c.figure == "bits_per_byte")
    assert bits.gains["prune"] == pytest.approx(1.2 * 1.1)  # quantize, which stays, meets prune
    assert "bootstrap over 2 repeats" in bits.method


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (["quantise"], "did you mean 'quantize'"),
        (["prune", "prune"], "named twice"),
        ([], "one to 6 steps"),
        (["make"], "'make' can't be left out, steps.prune needs the checkpoint it makes"),
        (["evaluate@prune"], "no step called"),
    ],
)
def test_factors_that_cannot_be_are_refused_before_anything_runs(tmp_path: Path, factors: list[str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        compose(recipe(), factors, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_step_that_another_refers_to_stays() -> None:
    taught = recipe(heal=Change(kind="c", teacher="prune"))
    with pytest.raises(SettingError, match=r"'prune' can't be left out, steps\.heal\.teacher refers to it"):
        check(taught, ["prune"])
    assert check(taught, ["quantize", "heal"]) == ("heal", "quantize")


def test_more_than_six_factors_are_refused() -> None:
    long = recipe(**{f"step{n}": Change() for n in range(7)})
    with pytest.raises(SettingError, match="7 would be 128 runs"):
        check(long, [f"step{n}" for n in range(7)])


@pytest.mark.parametrize("repeats", [0, -1, 1001, 10**300])
def test_repeats_have_bounds(tmp_path: Path, repeats: int) -> None:
    with pytest.raises(SettingError, match=r"repeats: must be from 1 to 1000"):
        compose(recipe(), ["prune"], tmp_path / "out", repeats=repeats)
