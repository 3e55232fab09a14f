"""The catalogue: every technique and choice with its row in the surveys, what it saves and its paper; and a page for each.

All of it comes from the classes and tables. A page is plain data: `shoestring techniques gptq` prints it, and
`recipe.documentation` writes it to docs/techniques/compress/gptq.md.
"""

from __future__ import annotations

import csv
import functools
import inspect
import json
import sys
import textwrap
from dataclasses import dataclass, fields, is_dataclass
from importlib import resources
from typing import Any

from pydantic import BaseModel

from shoestring.architecture.flat import Flat
from shoestring.choice import Choice, Table
from shoestring.errors import SettingError, nearest, shown
from shoestring.recipe import rooms
from shoestring.recipe.schema import settings
from shoestring.technique import Technique

CatalogueEntry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """What there is to say of a technique, of a table of choices, or of the features of a room.

    Attributes:
        name: "gptq", "Training.optimizer", "infer features".
        place: its file under docs, such as "techniques/compress/gptq.md".
        text: the idea, as paragraphs; formulas are indented.
        facts: by name: room, row, what it saves, its paper, what it reads and gives.
        heads: of the rows' columns; the first column names a setting or a choice, the last says what it means.
        rows: settings, or choices.
    """

    name: str
    place: str
    text: str
    facts: dict[str, str]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def entries(only: str | None = None) -> list[CatalogueEntry]:
    """Techniques, then choices, of one room or of all; `page` is where docs describe them.

    Raises:
        SettingError: no such room.
    """
    if only is not None and only not in rooms.ROOMS:
        raise SettingError(f"--room {only}: no such room; {nearest(only, rooms.ROOMS)}")
    found: list[CatalogueEntry] = [
        {
            "name": kind.name,
            "kind": "technique",
            "room": kind.room,
            "row": kind.row,
            "does": (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " "),
            "saves": list(kind.saves),
            "paper": kind.paper,
            "settings": settings(kind),
            "page": _place(kind.room, kind.name),
        }
        for kind in rooms.techniques().values()
    ]
    found += [
        {
            "name": f"{table.field}: {choice.name}",
            "kind": "choice",
            "room": room,
            "row": choice.row,
            "does": choice.does,
            "saves": list(choice.saves),
            "paper": choice.paper,
            "page": _place(room, _stem(table)),
        }
        for room, tables in rooms.tables().items()
        for table in tables
        for choice in table.choices
    ]
    return [entry for entry in found if only in (None, entry["room"])]


@functools.cache
def pages() -> dict[str, Page]:
    """Every page by name, in the order of the rooms; features by their fields too."""
    found = [_technique_page(kind) for kind in rooms.techniques().values()]
    found.append(_shape_page())
    features: dict[str, Page] = {}
    for room, tables in rooms.tables().items():
        found += [_table_page(room, table) for table in tables if not _features(table)]
        if simply := [table for table in tables if _features(table)]:
            found.append(_features_page(room, simply))
            features |= {table.field: found[-1] for table in simply}
    return {page.name: page for page in found} | features


def explain(name: str) -> str:
    """A technique or a table of choices for a person, as text for the terminal.

    Raises:
        SettingError: no such technique or table; the nearest name is given.
    """
    if name not in pages():
        raise SettingError(f"techniques: no technique called {shown(name)}; {nearest(name, pages())}")
    page = pages()[name]
    lines = [f"{page.name}: {page.text}", "", *(f"{key:6} {value}" for key, value in page.facts.items()), ""]
    lines.append(f"{page.heads[0]}s:" if page.rows else f"no {page.heads[0]}s")
    for first, *middle, last in page.rows:
        lines.append(f"  {first}: {'; '.join(filter(None, middle))}")
        lines += textwrap.wrap(last, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def taxonomy() -> list[dict[str, str]]:
    """The rows of the surveys: row, room, what, when (must, now, later)."""
    text = resources.files("shoestring.recipe").joinpath("taxonomy.tsv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def _technique_page(kind: type[Technique]) -> Page:
    what = {row["row"]: row["what"] for row in taxonomy()}
    facts = {
        "room": kind.room,
        "row": "; ".join(f"{row} ({what[row]})" for row in filter(None, kind.row.split(", "))),
        "saves": ", ".join(kind.saves),
        "paper": kind.paper,
        "reads": ", ".join([*kind.reads, *(f"{part} (when there)" for part in kind.uses)]),
        "gives": kind.gives,
    }
    known = {key: value for key, value in facts.items() if value}
    return Page(kind.name, _place(kind.room, kind.name), _text(kind), known, _SETTING_HEADS, _setting_rows(kind))


def _shape_page() -> Page:
    """What a recipe may say of a model's shape."""
    return Page(
        "ModelConfig", _place("model", "modelconfig"), _text(Flat), {"room": "model"}, _SETTING_HEADS, _setting_rows(Flat)
    )


def _text(kind: type[BaseModel]) -> str:
    return f"{inspect.getdoc(kind)}\n\n{_idea(kind)}"


def _setting_rows(kind: type[BaseModel]) -> tuple[tuple[str, ...], ...]:
    return tuple((key, _default(one), _allowed(one), " ".join(one["does"].split())) for key, one in settings(kind).items())


def _table_page(room: str, table: Table[Any]) -> Page:
    ideas = dict.fromkeys([inspect.cleandoc(table.about), *(_idea(choice.make) for choice in table.choices)])
    ideas |= dict.fromkeys(_own_settings(choice) for choice in table.choices)
    rows = tuple(_choice_row(choice.name, choice) for choice in table.choices)
    place = _place(room, _stem(table))
    return Page(table.field, place, "\n\n".join(filter(None, ideas)), {"room": room}, _CHOICE_HEADS, rows)


def _features_page(room: str, tables: list[Table[Any]]) -> Page:
    rows = tuple(_choice_row(f"{table.field}: {choice.name}", choice) for table in tables for choice in table.choices)
    text = "What is simply there, or follows from settings, and has no name of its own in a recipe."
    return Page(f"{room} features", _place(room, "features"), text, {}, _CHOICE_HEADS, rows)


_SETTING_HEADS = ("setting", "default", "allowed", "meaning")
_CHOICE_HEADS = ("choice", "row", "saves", "paper", "what it does")


def _own_settings(choice: Choice[Any]) -> str:
    """The settings of a choice that is a class of them, such as a mixer's, as a list."""
    if not (inspect.isclass(choice.make) and issubclass(choice.make, BaseModel)):
        return ""
    rows = [row for row in _setting_rows(choice.make) if row[0] != "kind"]
    lines = [f"- `{key}`, {default} ({allowed}): {does}" for key, default, allowed, does in rows]
    return "\n".join([f"Settings of `{choice.name}` where layers are spelled out one by one:", "", *lines]) if lines else ""


def _choice_row(name: str, choice: Choice[Any]) -> tuple[str, ...]:
    return name, choice.row, ", ".join(choice.saves), choice.paper, choice.does


def _idea(made: Any) -> str:
    """The docstrings of our modules in which it was defined: of what holds functions, the modules of those."""
    held = [getattr(made, one.name) for one in fields(made)] if is_dataclass(made) else []
    modules = [one.__module__ for one in held if inspect.isroutine(one)] or [getattr(made, "__module__", "")]
    ours = [module for module in dict.fromkeys(modules) if module.startswith("shoestring.")]
    return "\n\n".join(inspect.cleandoc(sys.modules[module].__doc__ or "") for module in ours)


def _features(table: Table[Any]) -> bool:
    return all(make is None for make in table.values())


def _stem(table: Table[Any]) -> str:
    return "features" if _features(table) else table.field.rpartition(".")[2].lower()


def _place(room: str, stem: str) -> str:
    return f"techniques/{room}/{stem}.md"


def _allowed(setting: CatalogueEntry) -> str:
    """What a setting takes, and the table that its names come from."""
    return f"{setting['allowed']}; see {setting['table']}" if "table" in setting else str(setting["allowed"])


def _default(setting: CatalogueEntry) -> str:
    """A setting's default as a recipe would write it."""
    if setting.get("default") is None:
        return "not given" if "default" in setting else "must be given"
    return json.dumps(setting["default"], ensure_ascii=False).strip('"')
