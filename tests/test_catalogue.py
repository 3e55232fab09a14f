"""The catalogue and the schema of recipes: every setting explained, and the schema agrees with what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoestring import files
from shoestring.errors import SettingError
from shoestring.recipe import build, catalogue, techniques
from shoestring.recipe.schema import allowed, schema, settings

jsonschema = pytest.importorskip("jsonschema")
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", sorted(techniques()))
def test_every_setting_says_what_it_means_and_takes(name: str) -> None:
    found = settings(techniques()[name])
    assert set(found) == set(techniques()[name].model_fields)
    silent = [key for key, one in found.items() if not one["does"] or not one["allowed"]]
    assert not silent, f"{name}: write a docstring under {', '.join(silent)}"
    text = catalogue.explain(name)
    assert all(f"\n  {key}: " in text for key in found)
    assert techniques()[name].paper in text


def test_an_unknown_technique_names_the_nearest() -> None:
    with pytest.raises(SettingError, match="did you mean 'gptq'"):
        catalogue.explain("gtpq")


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
    validator = jsonschema.Draft202012Validator(schema())
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
    assert not jsonschema.Draft202012Validator(schema()).is_valid(content)
    with pytest.raises(SettingError):
        build(content)
