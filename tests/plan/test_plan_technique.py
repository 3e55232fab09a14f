"""Planning as a step of a recipe."""

import json
from pathlib import Path

import pytest

from shoestring import artifact
from shoestring.errors import DamagedArtifact, FileError, SettingError
from shoestring.measure import Meter, find
from shoestring.plan import LAWS, Plan
from shoestring.plan.technique import read_law
from shoestring.technique import Budget, Outlook, Sketch, Task, Watch, configure
from shoestring.train import TrainingPlan

CPU = find("cpu")
SKETCH = Sketch(vocabulary=300, tokens=1e6, outlook=Outlook(Budget(time=60.0)))


def work_in(folder: Path, notes: list[str], sketch: Sketch = SKETCH) -> tuple[Task, Watch]:
    return Task(folder / "plan", folder / "scratch", CPU, sketch=sketch), Watch(Meter(CPU), notes.append)


def test_a_plan_is_predicted_written_and_observed_alike(tmp_path: Path) -> None:
    notes: list[str] = []
    predicted = Plan().predict(SKETCH, CPU)
    state = Plan().apply({"tokens": tmp_path}, *work_in(tmp_path, notes))
    assert state["plan"] == tmp_path / "plan"
    assert artifact.verify(state["plan"]).kind == "plan"
    written = TrainingPlan.model_validate_json((state["plan"] / "plan.json").read_text())
    assert written == predicted.sketch.plan
    assert predicted.sketch.model == written.model
    assert any("learning rate" in note for note in notes)
    assert {"name", "value", "unit", "formula", "source"} == set(written.formulas[0])
    later = Plan().observe(Sketch(), state)
    assert (later.plan, later.model) == (written, written.model)


def test_a_stored_plan_wins_over_what_would_be_decided_now(tmp_path: Path) -> None:
    state = Plan().apply({"tokens": tmp_path}, *work_in(tmp_path, []))
    richer = Sketch(vocabulary=300, tokens=1e6, outlook=Outlook(Budget(time=6000.0)))
    assert Plan().observe(richer, state).plan == Plan().predict(SKETCH, CPU).sketch.plan


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    state = Plan().apply({"tokens": tmp_path}, *work_in(tmp_path, []))
    assert state["plan"] is not None
    (state["plan"] / "plan.json").write_text("{}")
    with pytest.raises(DamagedArtifact, match=r"plan\.json"):
        Plan().observe(Sketch(), state)


def test_tokens_are_needed(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="needs a tokens"):
        Plan().apply({}, *work_in(tmp_path, []))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"contxt": 128}, "did you mean 'context'"),
        ({"reserve": 1.0}, "reserve"),
        ({"smallest": 100}, "multiple of 32"),
        ({"smallest": 512, "largest": 64}, "must not be above"),
        ({"batch": 0}, "batch"),
    ],
)
def test_wrong_settings_are_told(settings: dict, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        configure(Plan, settings, "steps.plan")


def test_laws_are_named_or_read_from_what_plan_fit_printed(tmp_path: Path) -> None:
    assert read_law("hoffmann") is LAWS["hoffmann"]
    with pytest.raises(SettingError, match="did you mean 'besiroglu'"):
        Plan(law="besiroglo").predict(SKETCH, CPU)
    with pytest.raises(FileError, match="no such file"):
        read_law(str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text(json.dumps({"E": 1}))
    with pytest.raises(FileError, match="holds no law"):
        read_law(str(tmp_path / "bad.json"))
