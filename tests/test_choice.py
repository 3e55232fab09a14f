"""Choices and their tables: checked by name, described to editors, told apart from what is not there."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel

from shoestring.choice import Choice, OneOf, Table
from shoestring.errors import SettingError
from shoestring.technique import configure

SHAPES = Table("Toy.shape", Choice("square", abs, "sides of one length", ""), Choice("circle", round, "no corner", "", "Euclid"))


class Toy(BaseModel):
    shape: Annotated[str, OneOf(SHAPES)] = "square"
    other: Annotated[str, OneOf(SHAPES)] | None = None
    either: Annotated[str, OneOf(SHAPES)] | tuple[Annotated[str, OneOf(SHAPES)], ...] = ()
    several: tuple[Annotated[str, OneOf(SHAPES)], ...] = ()


def test_a_table_maps_names_to_what_they_make() -> None:
    assert dict(SHAPES) == {"square": abs, "circle": round}
    assert [choice.paper for choice in SHAPES.choices] == ["", "Euclid"]
    assert SHAPES.choose("circle", "toy") is round


def test_an_unknown_name_is_one_line_with_the_nearest_wherever_it_stands() -> None:
    line = "no shape called 'squrae'; did you mean 'square'\\? allowed: circle, square"
    with pytest.raises(SettingError, match=f"^steps.toy.shape: {line}$"):
        configure(Toy, {"shape": "squrae"}, "steps.toy")
    with pytest.raises(SettingError, match=f"^steps.toy.other: {line}$"):
        configure(Toy, {"other": "squrae"}, "steps.toy")
    with pytest.raises(SettingError, match=f"^steps.toy.several.1: {line}$"):
        configure(Toy, {"several": ["circle", "squrae"]}, "steps.toy")
    with pytest.raises(SettingError, match=f"^steps.toy.either: {line}$"):
        configure(Toy, {"either": "squrae"}, "steps.toy")
    with pytest.raises(SettingError, match=f"^toy: {line}$"):
        SHAPES.choose("squrae", "toy")
    with pytest.raises(SettingError, match=r"shape: .*string, got 3"):
        configure(Toy, {"shape": 3}, "toy")


def test_a_known_name_stays_a_plain_text() -> None:
    toy = Toy(shape="circle", several=("square",))
    assert toy.model_dump(mode="json") == {"shape": "circle", "other": None, "either": [], "several": ["square"]}


def test_the_schema_lists_the_names_in_the_tables_order() -> None:
    properties = Toy.model_json_schema()["properties"]
    assert properties["shape"].items() >= {"default": "square", "enum": ["square", "circle"], "x-table": "Toy.shape"}.items()
    assert properties["other"]["anyOf"][0] == {"type": "string", "enum": ["square", "circle"], "x-table": "Toy.shape"}


def test_two_choices_of_one_name_are_a_mistake_of_the_tables() -> None:
    with pytest.raises(AssertionError, match="two choices"):
        Table("Toy.shape", *SHAPES.choices, SHAPES.choices[0])
