"""Rooms whose names are looked up when first used: a plan, a forecast and the command line's help then need no torch."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def lazily(room: str, file: str, **lists: tuple[str, ...]) -> Callable[[str], Any]:
    """The `__getattr__` of a package that imports its names for type checkers alone (`if TYPE_CHECKING:`): what it imports
    there is imported when it is asked for.

    Args:
        lists: names that stand for tuples of others; an entry that is a tuple itself is spread.
    """

    @cache
    def homes() -> dict[str, str]:
        """The module of each name; the file is read at the first question, not at every import of the package."""
        imports = [node for node in ast.walk(ast.parse(Path(file).read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        ours = [node for node in imports if node.module and node.module.startswith(__package__)]
        return {each.name: node.module for node in ours for each in node.names if node.module}

    def find(name: str) -> Any:
        if name in lists:
            entries = [find(each) for each in lists[name]]
            found: Any = tuple(one for entry in entries for one in (entry if isinstance(entry, tuple) else (entry,)))
        elif name in homes():
            found = getattr(importlib.import_module(homes()[name]), name)
        else:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        setattr(sys.modules[room], name, found)
        return found

    return find
