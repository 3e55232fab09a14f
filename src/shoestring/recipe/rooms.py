"""Every technique that a recipe can name, gathered from the rooms by their own lists.

The rooms are imported when first asked for: torch and the engines behind them take seconds, and `--help` must not.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from shoestring.choice import Table
from shoestring.errors import SettingError, nearest, shown
from shoestring.technique import Technique

ROOMS = ("data", "model", "train", "infer", "answer", "evaluate", "tune", "compress", "plan")
"""The rooms that have techniques, in the order of a model's life."""


@functools.cache
def techniques() -> dict[str, type[Technique]]:
    """All techniques by name, in the order of the rooms."""
    found: dict[str, type[Technique]] = {}
    for room in ROOMS:
        for kind in importlib.import_module(f"shoestring.{room}").TECHNIQUES:
            assert kind.name not in found, f"two techniques are called {kind.name}"
            found[kind.name] = kind
    return found


@functools.cache
def tables() -> dict[str, tuple[Table[Any], ...]]:
    """The tables of choices inside models, trainers and engines, by room."""
    return {room: getattr(importlib.import_module(f"shoestring.{room}"), "TABLES", ()) for room in ROOMS}


def version(room: str) -> int:
    """Raised by a room when code that its techniques share gives other results."""
    return int(importlib.import_module(f"shoestring.{room}").VERSION)


def find(name: str, where: str) -> type[Technique]:
    """The technique of that name.

    Raises:
        SettingError: there is none; the nearest name is given.
    """
    if name not in techniques():
        raise SettingError(f"{where}: no technique called {shown(name)}; {nearest(name, techniques())}")
    return techniques()[name]
