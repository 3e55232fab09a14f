"""Techniques that cost nothing, to test what surrounds techniques."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import Field

from shoestring.artifact import manifest, writing
from shoestring.errors import ShoestringError
from shoestring.measure import Hardware, predicted_usage
from shoestring.technique import FileName, Prediction, Sketch, State, StepName, Task, Technique, Watch, need, usage_after

applied: list[str] = []
"""Names of the steps that were really done, in order."""


class Toy(Technique):
    """Shared by the toys: each predicts one second and writes one file."""

    room: ClassVar[str] = "data"
    row: ClassVar[str] = "D1"

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        return Prediction(predicted_usage(seconds=1.0, hardware=hardware, peak_memory=1e6, flops=1.0), sketch)

    def make(self, task: Task, name: str, content: object, about: dict[str, Any] | None = None) -> None:
        applied.append(self.name)
        with writing(task.out, self.gives, about) as folder:
            (folder / name).write_text(json.dumps(content))


class Words(Toy):
    """Makes a corpus of some words."""

    name: ClassVar[str] = "words"
    gives: ClassVar[str] = "corpus"
    count: int = Field(default=3, gt=0)
    source: FileName = "none"

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        self.make(task, "words.json", list(range(self.count)))
        return {**state, "corpus": task.out}


class Learn(Toy):
    """Makes a checkpoint from a corpus."""

    name: ClassVar[str] = "learn"
    room: ClassVar[str] = "train"
    reads: ClassVar[tuple[str, ...]] = ("corpus",)
    gives: ClassVar[str] = "checkpoint"
    skill: float = 1.0
    fail: bool = False
    hours: float = 0.0

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        if self.fail:
            raise ShoestringError("too hard")
        words = json.loads((need(state, "corpus", self.name) / "words.json").read_text())
        time = task.sketch.outlook.remaining.time
        short = time is not None and time < self.hours * 3600
        quality = 8.0 / (len(words) * self.skill) * (2 if short else 1)
        self.make(task, "model.json", {"quality": quality}, {"cut": {"steps": 1, "of": 2}} if short else {})
        return {**state, "checkpoint": task.out}


class Shrink(Toy):
    """Makes a checkpoint worse by a factor."""

    name: ClassVar[str] = "shrink"
    room: ClassVar[str] = "compress"
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    gives: ClassVar[str] = "checkpoint"
    factor: float = 1.5
    teacher: StepName | None = None

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        model = json.loads((need(state, "checkpoint", self.name) / "model.json").read_text())
        self.make(task, "model.json", {"quality": model["quality"] * self.factor})
        return {**state, "checkpoint": task.out}


class Judge(Toy):
    """Reads a checkpoint's quality."""

    name: ClassVar[str] = "evaluate"
    room: ClassVar[str] = "evaluate"
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    gives: ClassVar[str] = "numbers"
    windows: int = 4

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        model = json.loads((need(state, "checkpoint", self.name) / "model.json").read_text())
        figure = {"value": model["quality"], "unit": "bit/B", "kind": "measured"}
        self.make(task, "numbers.json", {"bits_per_byte": figure})
        return {**state, "numbers": task.out}


class Decide(Toy):
    """Plans from what is left of the budget and what the later steps will use."""

    name: ClassVar[str] = "decide"
    room: ClassVar[str] = "plan"
    gives: ClassVar[str] = "plan"
    budgeted: ClassVar[bool] = True

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        left, rest = task.sketch.outlook.remaining.time, usage_after(task.sketch, task.hardware)
        self.make(task, "plan.json", {"left": left, "rest": rest.seconds.value})
        return {**state, "plan": task.out}


TOYS = {kind.name: kind for kind in (Words, Learn, Shrink, Judge, Decide)}


def size(path: object) -> int:
    """Bytes of an artifact."""
    return manifest(path).bytes  # type: ignore[arg-type]
