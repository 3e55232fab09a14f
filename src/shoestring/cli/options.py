"""What the commands share: their common options, settings from the command line, and how a result is said."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from shoestring.errors import SettingError, nearest, shown

Field = Annotated[str, typer.Option("--field", help="Field (column) of rows that holds the text.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeat for more.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run; runs/NAME when not given.")]
Model = Annotated[str, typer.Argument(help="A folder of a model or a run, a GGUF file, or a fetched name.")]
MOST = 2**31 - 1
"""The largest count that an option takes."""


def say(json: bool, record: dict[str, Any], text: str) -> None:
    """The result on standard output: one JSON object, or text for people."""
    print(json_module.dumps(record, default=str) if json else text)


def settings(sets: list[str] | None) -> dict[str, Any]:
    """The settings of one technique from its `--set KEY=VALUE` options."""
    from shoestring import files

    found = {}
    for change in sets or []:
        key, equals, text = change.partition("=")
        if not equals:
            raise SettingError(f"--set {shown(change, quote=False)}: write KEY=VALUE, such as bits=4")
        found[key.strip()] = files.parse_yaml(text, f"--set {shown(key, quote=False)}")
    return found


def technique(name: str, room: str, chosen: dict[str, Any]) -> Any:
    """The technique of that name in that room, with its settings.

    Raises:
        SettingError: the room has none of that name, or a setting does not fit.
    """
    from shoestring import recipe as recipes
    from shoestring.technique import configure

    here = {key: kind for key, kind in recipes.techniques().items() if kind.room == room}
    if name not in here:
        raise SettingError(f"{room} {shown(name, quote=False)}: no such technique in this room; {nearest(name, here)}")
    return configure(here[name], chosen, name)
