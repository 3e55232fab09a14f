"""Settings, states and sketches."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from shoestring import artifact
from shoestring.choice import OneOf
from shoestring.errors import SettingError
from shoestring.recipe import techniques
from shoestring.technique import (
    Budget,
    FileName,
    Outlook,
    Outside,
    Plain,
    Sketch,
    StepName,
    Technique,
    Word,
    _Reference,
    configure,
    need,
)


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


def _texts(kind: object, where: str, marked: bool = False) -> list[str]:
    """The parts of a field's type that take any text without a word on whether it names a file, a step or neither."""
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
        return _texts(kind, where, marked or any(isinstance(mark, (OneOf, Outside, Plain, _Reference)) for mark in marks))
    if get_origin(kind) is Literal or marked:
        return []
    if kind in (str, bytes, Path, Any, object):
        return [where]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [found for name, info in kind.model_fields.items() for found in _field(info, f"{where}.{name}")]
    return [found for part in get_args(kind) for found in _texts(part, where)]


def _field(info: FieldInfo, where: str) -> list[str]:
    return _texts(Annotated[info.annotation, *info.metadata, None], where)


def test_no_setting_takes_a_text_without_saying_whether_it_names_a_file() -> None:
    class Careless(Technique):
        name: ClassVar[str] = "careless"
        path: str | None = None
        many: tuple[FileName | Path, ...] = ()
        kind: Literal["a", "b"] = "a"
        word: Word | None = None
        table: dict[str, Any] = Field(default_factory=dict)

    found = [text for name, info in Careless.model_fields.items() for text in _field(info, name)]
    assert sorted(set(found)) == ["many", "path", "table"]
    for technique in techniques().values():
        for name, info in technique.model_fields.items():
            assert not _field(info, f"{technique.name}.{name}"), "mark it FileName, StepName or Word"


def test_a_word_is_no_file_and_a_home_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reads(Technique):
        name: ClassVar[str] = "reads"
        source: Annotated[str, Outside(("train",))] = "train"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = Reads().outside()
    (tmp_path / "train").write_text("a folder of the user's")
    assert Reads().outside() == before
    known = Reads(source="~/train").outside()
    (tmp_path / "train").write_text("changed")
    assert Reads(source="~/train").outside() != known


def test_a_state_says_what_is_missing(tmp_path: Path) -> None:
    state = {"tokens": tmp_path}
    assert need(state, "tokens", "toy") == tmp_path
    with pytest.raises(SettingError, match=r"^toy: needs a checkpoint"):
        need(state, "checkpoint", "toy")


def test_a_sketch_is_corrected_by_the_facts_of_the_artifact(tmp_path: Path) -> None:
    with artifact.writing(tmp_path / "x", "checkpoint", {"facts": {"bits_per_weight": 4.5, "tokens": None}}):
        pass
    sketch = Toy().observe(Sketch(tokens=7.0, outlook=Outlook(Budget(time=1.0))), {"checkpoint": tmp_path / "x"})
    assert (sketch.bits_per_weight, sketch.tokens, sketch.outlook.remaining.time) == (4.5, 7.0, 1.0)
