"""What recipes may say, as JSON Schema (2020-12) for editors, and each setting's range and choices in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from shoestring.evaluate import Evaluate
from shoestring.recipe import rooms
from shoestring.settings import LARGEST
from shoestring.technique import Technique

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> Schema:
    """The JSON Schema of a recipe file: every technique with its settings, what they mean, their ranges and choices."""
    shared: Schema = {}
    techniques = {name: _of(kind, shared) for name, kind in rooms.techniques().items()}
    amount = {"type": ["string", "number"]}
    examples = {"time": "5 min", "memory": "8 GB", "energy": "1 kWh", "money": "$2"}
    entry = {
        "type": "object",
        "properties": {
            **{name: {"anyOf": [one, {"type": "null"}], "description": one["description"]} for name, one in techniques.items()},
            "as": {"type": "string", "description": "A name of the step's own; else it is called like its technique."},
        },
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 2,
    }
    top = {
        "steps": {
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [{"enum": list(techniques)}, entry]},
            "description": "Techniques in order, each alone or with its settings.",
        },
        "name": {"type": "string", "description": "The run's folder under runs/; the file's name when not given."},
        "budget": {
            "type": "object",
            "properties": {key: {**amount, "description": f"Such as {example}."} for key, example in examples.items()},
            "additionalProperties": False,
            "description": "Limits; leave out what does not matter.",
        },
        "seed": {"type": "integer", "minimum": 0, "maximum": LARGEST, "description": "Every random draw follows from it."},
        "ranks": {"type": "integer", "minimum": 1, "maximum": 64, "description": "Processes that share a step that trains."},
        "device": {"enum": ["auto", "cpu", "cuda"], "description": "Where the steps run."},
        "quality": {
            "anyOf": [_of(Evaluate, shared), {"type": "boolean"}],
            "description": "The evaluation behind each step that changes the model; false for none.",
        },
    }
    return {
        "$schema": _DIALECT,
        "title": "A Shoestring recipe",
        "type": "object",
        "properties": top,
        "required": ["steps"],
        "additionalProperties": False,
        "$defs": shared,
    }


def settings(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Of each setting of a class what it `does`, what is `allowed`, its `default` (missing when it must be given), and the
    `table` of choices that its names come from (missing when there is none).
    """
    found = {}
    properties = kind.model_json_schema()["properties"] if kind.model_fields else {}
    for key, one in properties.items():
        found[key] = {"does": one.get("description", ""), "allowed": allowed(one)}
        if "default" in one:
            found[key]["default"] = one["default"]
        for part in [one, *one.get("anyOf", ())]:
            if "x-table" in part:
                found[key]["table"] = part["x-table"]
    return found


def allowed(one: Mapping[str, Any]) -> str:
    """What a setting takes, in words, from its JSON Schema.

    >>> allowed({"type": "integer", "minimum": 2, "maximum": 8})
    'whole number, 2 to 8'
    """
    if "anyOf" in one:
        return " or ".join(dict.fromkeys(allowed(part) for part in one["anyOf"] if part.get("type") != "null"))
    if "const" in one:
        return str(one["const"])
    if "enum" in one:
        return ", ".join(map(str, one["enum"]))
    kind = one.get("type")
    if kind == "array":
        return "list of " + (allowed(one["items"]) if "items" in one else "values")
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "on, off"}
    return ", ".join(filter(None, (names.get(str(kind), "settings"), _range(one))))


def _range(one: Mapping[str, Any]) -> str:
    low, high = one.get("minimum"), one.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    parts = [f"at least {low}"] if low is not None else []
    parts += [f"above {one['exclusiveMinimum']}"] if "exclusiveMinimum" in one else []
    parts += [f"at most {high}"] if high is not None else []
    parts += [f"below {one['exclusiveMaximum']}"] if "exclusiveMaximum" in one else []
    parts += [f"a multiple of {one['multipleOf']}"] if "multipleOf" in one else []
    return " and ".join(parts)


def _of(kind: type[Technique], shared: Schema) -> Schema:
    """A technique's own schema; what its fields share goes into `shared`."""
    one = kind.model_json_schema(ref_template="#/$defs/{model}")
    shared |= one.pop("$defs", {})
    return one
