"""Settings, states and sketches."""

from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from shoestring import artifact
from shoestring.errors import SettingError
from shoestring.technique import Budget, FileName, Sketch, State, StepName, Technique, configure


class Toy(Technique):
    """A technique that does nothing."""

    name: ClassVar[str] = "toy"
    room: ClassVar[str] = "compress"
    row: ClassVar[str] = "Q1"
    gives: ClassVar = "checkpoint"

    bits: Annotated[int, Field(gt=0, le=8)] = 4
    teacher: StepName | None = None
    text: FileName | tuple[FileName, ...] | None = None


def test_settings_are_frozen_and_checked() -> None:
    assert configure(Toy, {"bits": 3}, "steps.toy").bits == 3
    with pytest.raises(Exception, match="frozen"):
        Toy().bits = 5  # type: ignore[misc]


def test_all_mistakes_are_told_at_once_in_one_line_with_the_nearest_name() -> None:
    with pytest.raises(SettingError) as caught:
        configure(Toy, {"bist": 3, "bits": 9}, "steps.toy")
    said = str(caught.value)
    assert "steps.toy.bist: no such setting; did you mean 'bits'?" in said
    assert "steps.toy.bits: " in said
    assert "got 9" in said


def test_a_hundred_mistakes_are_not_all_spelled_out() -> None:
    with pytest.raises(SettingError, match="and 80 more"):
        configure(Toy, {f"key{number}": 1 for number in range(100)}, "steps.toy")


def test_a_missing_setting_is_named() -> None:
    class Needs(Toy):
        size: int

    with pytest.raises(SettingError, match=r"steps\.needs\.size: must be given"):
        configure(Needs, {}, "steps.needs")


def test_fields_that_name_steps_are_found() -> None:
    assert Toy(teacher="pretrain").references() == {"teacher": "pretrain"}
    assert Toy().references() == {}


def test_what_a_file_holds_is_part_of_what_the_result_depends_on(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one")
    before = Toy(text=str(file)).outside()
    file.write_text("two")
    assert Toy(text=str(file)).outside() != before
    assert Toy(text=(str(file),)).outside() == Toy(text=str(file)).outside()


def test_a_state_says_what_is_missing(tmp_path: Path) -> None:
    state = State().with_("tokens", tmp_path)
    assert state.need("tokens", "toy") == tmp_path
    with pytest.raises(SettingError, match=r"^toy: needs a checkpoint"):
        state.need("checkpoint", "toy")


def test_a_sketch_is_corrected_by_the_facts_of_the_artifact(tmp_path: Path) -> None:
    with artifact.writing(tmp_path / "x", "checkpoint", {"facts": {"bits_per_weight": 4.5, "tokens": None}}):
        pass
    sketch = Toy().observe(Sketch(tokens=7.0, remaining=Budget(time=1.0)), State(checkpoint=tmp_path / "x"))
    assert (sketch.bits_per_weight, sketch.tokens, sketch.remaining.time) == (4.5, 7.0, 1.0)
