"""Planning as a step of a recipe: what is left of the budget becomes a model, tokens, steps and rates.

    L(N, D) = E + A / N^alpha + B / D^beta        (Chinchilla, arXiv 2203.15556, equation 2; nats per token)
    steps(shape) = least over the limits of (limit x (1 - reserve) - what later steps cost) / cost of a step

For a given computation, 6 N D operations, a larger model learns more from a token but sees fewer of them: there is a best
size. Shapes on a ladder of widths get as many steps as the budget allows each; the one with the least L wins. Repeated tokens
count less (arXiv 2305.16264). Batch and learning rate follow Step Law (arXiv 2503.04715).

N parameters, D tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from shoestring import artifact
from shoestring.errors import DamagedArtifact, FileError, SettingError
from shoestring.files import read_object
from shoestring.measure import Hardware, predicted_usage
from shoestring.plan.allocate import Requested, allocate
from shoestring.plan.explain import explain, lines
from shoestring.plan.laws import LAWS, Law
from shoestring.plan.trust import sane
from shoestring.technique import Outside, Prediction, Sketch, State, Task, Technique, Watch, need
from shoestring.train.precision import Precision
from shoestring.train.training_plan import TrainingPlan

SECONDS = 0.3
"""What planning itself takes."""


class Plan(Technique):
    """Choose model, tokens, batch and learning rate so that the rest of the recipe fits what is left of the budget.

    Each shape of a ladder gets as many steps as time, energy and money allow; the one with the least loss by Chinchilla's law
    wins, repeated text counting less. Every figure is printed with its formula and source.
    """

    name: ClassVar[str] = "plan"
    room: ClassVar[str] = "plan"
    row: ClassVar[str] = "B1"
    paper: ClassVar[str] = "2203.15556"
    saves: ClassVar[tuple[str, ...]] = ("computation", "energy", "money", "data")
    reads: ClassVar[tuple[str, ...]] = ("tokens",)
    gives: ClassVar[str] = "plan"
    budgeted: ClassVar[bool] = True

    law: Annotated[str, Outside(tuple(LAWS))] = "besiroglu"
    """"besiroglu", "hoffmann", or a JSON file that `shoestring plan law RUNS.csv --json` printed."""
    context: Annotated[int, Field(ge=8)] | None = None
    """Tokens of a sequence; 256 on a CPU and 1024 on a GPU when not given."""
    reserve: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of what is left that stays unused, for what predictions miss."""
    epochs: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    """How often the text is read at the most; what more brings is next to nothing (arXiv 2305.16264)."""
    smallest: Annotated[int, Field(ge=32, multiple_of=32)] = 64
    """Least width to consider."""
    largest: Annotated[int, Field(ge=32, multiple_of=32)] = 16384
    """Greatest width to consider."""
    batch: Annotated[int, Field(gt=0)] | None = None
    """Sequences of an optimizer step; Step Law's when not given."""
    query_groups: Annotated[int, Field(gt=0)] = 1
    """Query heads that share a key-value head."""
    precision: Precision | None = None
    """The faster on this machine when not given."""

    @model_validator(mode="after")
    def _ordered(self) -> Plan:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) must not be above largest ({self.largest})")
        return self

    def requested(self) -> Requested:
        """The settings as `allocate` takes them."""
        names = ("reserve", "epochs", "context", "smallest", "largest", "batch", "query_groups", "precision")
        return Requested(law=read_law(self.law), **{name: getattr(self, name) for name in names})

    def outside(self) -> str:
        """The constants in force: a law may come from a file."""
        return repr(read_law(self.law))

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """The plan for what is left of the budget, and the sketch with it."""
        plan = self.decide(sketch, hardware)
        usage = predicted_usage(seconds=SECONDS, hardware=hardware, flops=0.0, peak_memory=0.0, method="arithmetic")
        return Prediction(usage, sketch.with_(plan=plan, model=plan.model))

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Write the plan and say its formulas."""
        need(state, "tokens", "plan")
        plan = self.decide(task.sketch, task.hardware)
        watch.note(f"plan for what is left of the budget on {task.hardware.name}:")
        for line in lines(plan.formulas):
            watch.note(line)
        about: dict[str, Any] = {"calibrated": task.hardware.calibrated, "law": self.law}
        with artifact.writing(task.out, "plan", about) as folder:
            (folder / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n", "utf-8")
        return {**state, "plan": task.out}

    def observe(self, sketch: Sketch, state: State) -> Sketch:
        """The plan that was written, which a stored one keeps even when the machine has been calibrated again since."""
        file = need(state, "plan", "plan") / "plan.json"
        try:
            plan = TrainingPlan.model_validate_json(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DamagedArtifact(file, "not a training plan") from error
        return sketch.with_(plan=plan, model=plan.model)

    def decide(self, sketch: Sketch, hardware: Hardware) -> TrainingPlan:
        """The plan with its formulas."""
        requested = self.requested()
        chosen = allocate(sketch, hardware, requested)
        return chosen.plan.model_copy(update={"formulas": explain(chosen, hardware, requested)})


def read_law(name: str) -> Law:
    """A published law by name, or one from a file of `plan law`.

    Raises:
        SettingError: neither a known name nor a file. FileError: the file holds no law.
    """
    if name in LAWS:
        return LAWS[name]
    file = Path(name)
    if not file.suffix:
        raise SettingError(f"plan.law: {LAWS.unknown(name)}, or a JSON file from plan law")
    try:
        record = read_object(file)
        constants = {key: float(record[key]["value"]) for key in ("E", "A", "B", "alpha", "beta")}
        smallest = {key: float(record[key]) for key in ("smallest_parameters", "smallest_tokens")}
        if not sane(np.array(list(constants.values()))):
            raise ValueError("constants that no law has")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise FileError(f"{file}: holds no law; give what `shoestring plan law RUNS.csv --json` printed") from error
    return Law(name=file.stem, source=f"fitted: {file.name}", **constants, **smallest)
