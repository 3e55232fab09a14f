"""The plan as a step of a recipe: what is left of the budget, in the light of all steps after it, becomes a training plan."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shoestring.artifact import writing
from shoestring.measure import Hardware, predicted_usage
from shoestring.plan.allocate import Wishes, allocate
from shoestring.plan.explain import explained, shown
from shoestring.technique import Part, Prediction, Sketch, State, Technique, Work
from shoestring.train import TrainingPlan
from shoestring.train.pretrain import read_plan


class Plan(Technique):
    """Choose model size, tokens, batch, learning rate and precision from the budget and the calibrated machine."""

    name: ClassVar[str] = "plan"
    room: ClassVar[str] = "plan"
    row: ClassVar[str] = "B1, B6"
    paper: ClassVar[str] = "2203.15556"
    saves: ClassVar[tuple[str, ...]] = ("computation", "energy", "money")
    reads: ClassVar[tuple[Part, ...]] = ("tokens",)
    gives: ClassVar[Part] = "plan"
    budgeted: ClassVar[bool] = True

    law: Literal["besiroglu", "hoffmann"] = "besiroglu"
    """Whose constants weigh parameters against tokens."""
    context: Annotated[int, Field(ge=16)] = 256
    """Tokens of one sequence."""
    reserve: Annotated[float, Field(ge=0, lt=1)] = 0.12
    """Share of what is left that is kept back for what the machine does otherwise."""
    batch: Annotated[int, Field(gt=0)] | None = None
    """Sequences of one optimizer step, instead of the law's."""
    least_width: Annotated[int, Field(ge=32)] = 64
    most_width: Annotated[int, Field(ge=32)] = 8192

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """The plan itself, made from what is known so far; deciding costs nothing to speak of."""
        return Prediction(predicted_usage(seconds=0.05, hardware=hardware, method="arithmetic"), self._decided(sketch, hardware))

    def apply(self, state: State, work: Work) -> State:
        """Decide, say how, and keep it."""
        state.need("tokens", self.name)
        plan = self._decided(work.sketch, work.hardware).plan
        assert isinstance(plan, TrainingPlan)
        for line in plan.formulas:
            work.note(f"plan: {shown(line)}")
        with writing(work.out, "plan", {"facts": {}}) as folder:
            (folder / "plan.json").write_text(plan.model_dump_json(indent=1), "utf-8")
        return state.with_("plan", work.out)

    def observe(self, sketch: Sketch, state: State) -> Sketch:
        """What the stored plan says, not what would be decided now."""
        plan = read_plan(state.need("plan", self.name))
        return sketch.with_(plan=plan, model=plan.model)

    def _decided(self, sketch: Sketch, hardware: Hardware) -> Sketch:
        wishes = Wishes(
            law=self.law,
            context=self.context,
            reserve=self.reserve,
            batch=self.batch,
            least_width=self.least_width,
            most_width=self.most_width,
        )
        plan = explained(allocate(sketch, hardware, wishes), sketch, hardware, wishes)
        return sketch.with_(plan=plan, model=plan.model)
