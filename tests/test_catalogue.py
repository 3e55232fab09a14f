"""The catalogue and the schema of recipes: every setting and choice explained, and the schema agrees with what is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from shoestring import files
from shoestring.artifact import PARTS
from shoestring.choice import Table
from shoestring.errors import SettingError
from shoestring.recipe import build, catalogue, documentation, tables, techniques
from shoestring.recipe.schema import allowed, recipe_schema, settings
from shoestring.technique import configure

jsonschema = pytest.importorskip("jsonschema")
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def _settings_classes(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """All pydantic classes of ours but the forms of files and requests that others have defined."""
    for below in kind.__subclasses__():
        yield from _settings_classes(below)
        name = f"{below.__module__}.{below.__name__}"
        if name.startswith("shoestring.") and not name.startswith(("shoestring.serve.wire", "shoestring.recipe.recipe._Raw")):
            yield below


TABLES = [pytest.param(table, id=table.field) for found in tables().values() for table in found]
ROWS = {row["row"] for row in catalogue.taxonomy()}


@pytest.mark.parametrize("name", sorted(techniques()))
def test_every_technique_says_what_it_is(name: str) -> None:
    kind = techniques()[name]
    assert kind.__module__.startswith(f"shoestring.{kind.room}.")
    assert name == kind.name.lower()
    assert kind.row or not kind.paper, "a technique with a paper has a row"
    assert kind.version >= 1
    assert {*kind.reads, *kind.uses, kind.gives} <= set(PARTS)
    assert not set(kind.reads) & set(kind.uses)
    assert kind.__doc__


@pytest.mark.parametrize("name", sorted(techniques()))
def test_every_setting_says_what_it_means_and_takes(name: str) -> None:
    kind, found = techniques()[name], settings(techniques()[name])
    assert set(found) == set(kind.model_fields)
    silent = [key for key, one in found.items() if not one["does"] or not one["allowed"]]
    assert not silent, f"{name}: write a docstring under {', '.join(silent)}"
    text = catalogue.explain(name)
    assert all(f"\n  {key}: " in text for key in found)
    assert all(part in text for part in (kind.paper, *kind.reads, *kind.uses, kind.gives))
    idea = sys.modules[kind.__module__].__doc__ or ""
    assert len(idea.split()) >= 40, f"{kind.__module__}: write the idea, its formula with a legend and the paper"


@pytest.mark.parametrize("name", sorted(techniques()))
def test_a_name_that_no_table_has_is_one_line_with_the_nearest(name: str) -> None:
    for key, one in settings(techniques()[name]).items():
        if "table" in one:
            right = one["allowed"].split(", ")[0]
            with pytest.raises(SettingError, match=rf"{name}\.{key}: no \w+ called '{right}x'; did you mean '{right}'"):
                configure(techniques()[name], {key: right + "x"}, name)


@pytest.mark.parametrize("table", TABLES)
def test_every_choice_has_a_line_a_row_and_a_page(table: Table[Any]) -> None:
    assert len(catalogue.pages()[table.field].text.split()) > 15, "write the idea above what makes it, or give about=__doc__"
    for choice in table.choices:
        assert choice.does
        assert choice.row in {"", *ROWS}
        [entry] = [entry for entry in catalogue.entries() if entry["name"] == f"{table.field}: {choice.name}"]
        page = catalogue.pages()[table.field]
        assert page.place == entry["page"]
        [row] = [row for row in page.rows if row[0] in (choice.name, entry["name"])]
        assert choice.paper in row
        assert choice.does == row[-1]
        assert f"\n  {row[0]}: " in catalogue.explain(page.name)


def test_everything_stands_in_a_row_of_the_surveys_and_saves_what_they_measure() -> None:
    for entry in catalogue.entries():
        assert {"", *ROWS} >= set(entry["row"].split(", ")), entry["name"]
        assert set(documentation.RESOURCES) >= set(entry["saves"]), entry["name"]


def test_no_two_pages_have_one_place() -> None:
    pages = {page.name: page.place for page in catalogue.pages().values()}
    assert len(set(pages.values())) == len(pages)


def test_an_unknown_technique_names_the_nearest() -> None:
    with pytest.raises(SettingError, match="did you mean 'gptq'"):
        catalogue.explain("gtpq")
    with pytest.raises(SettingError, match=r"did you mean 'Training\.optimizer'"):
        catalogue.explain("Training.optimiser")


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({"type": "integer", "minimum": 2, "maximum": 8}, "whole number, 2 to 8"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "number, above 0 and below 1"),
        ({"anyOf": [{"const": "auto"}, {"type": "boolean"}]}, "auto or on, off"),
        ({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}, "list of text"),
        ({"enum": ["fp32", "bf16"]}, "fp32, bf16"),
    ],
)
def test_ranges_and_choices_in_words(one: dict[str, Any], words: str) -> None:
    assert allowed(one) == words


def test_the_schema_takes_the_recipes_that_are_here_and_what_they_resolve_to() -> None:
    validator = jsonschema.Draft202012Validator(recipe_schema())
    assert RECIPES
    for path in RECIPES:
        content = files.read_yaml(path)
        validator.validate(content)
        validator.validate(build(content).to_json())


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"steps": []},
        {"steps": ["gtpq"]},
        {"steps": [{"gptq": {"bits": 9}}]},
        {"steps": [{"gptq": {"bist": 4}}]},
        {"steps": ["corpus"], "budget": {"tiem": "1 s"}},
        {"steps": ["corpus"], "seed": 2**63},
        {"steps": ["corpus"], "quality": {"windows": 0}},
        {"steps": ["corpus"], "device": "gpu"},
        {"steps": ["corpus"], "stesp": 1},
    ],
)
def test_the_schema_refuses_what_reading_refuses(content: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(recipe_schema()).is_valid(content)
    with pytest.raises(SettingError):
        build(content)


@pytest.mark.parametrize("kind", dict.fromkeys(_settings_classes(BaseModel)), ids=lambda kind: kind.__name__)
def test_every_settings_class_says_what_each_field_means_and_where_its_names_come_from(kind: type[BaseModel]) -> None:
    silent = [field for field, info in kind.model_fields.items() if not info.description and field != "kind"]  # a part's own name
    assert not silent, f"write a docstring under each, with use_attribute_docstrings: {', '.join(silent)}"
    unlisted = {one["table"] for one in settings(kind).values() if "table" in one} - set(catalogue.pages())
    assert not unlisted, f"name it in TABLES of its room: {', '.join(unlisted)}"
