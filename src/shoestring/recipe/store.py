"""The store: each step's artifact under a key that follows from its settings, its inputs and its technique's version.

A run that stopped goes on where it stopped, and two recipes that begin alike share their beginning. Beside an artifact
`NAME` stands `NAME.json`: what making it used, so that a reused step still has its cost.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shoestring import artifact
from shoestring.errors import DamagedArtifact, FileError, ShoestringError, file_error
from shoestring.measure import Hardware
from shoestring.recipe.place import LOCK
from shoestring.recipe.recipe import Recipe, Step
from shoestring.technique import State

SCRATCH = ".scratch"
"""The folder in a store where steps keep their restart points."""


def key(step: Step, recipe: Recipe, state: State, earlier: Mapping[str, State], hardware: Hardware) -> str:
    """The name of a step's artifact: technique and a digest of all that its result depends on."""
    technique = step.technique
    parts = (*technique.reads, *technique.uses)
    inputs: dict[str, str] = {part: path.name for part in parts if (path := getattr(state, part)) is not None}
    for field, name in technique.references().items():
        other = earlier[name].checkpoint or getattr(earlier[name], technique.gives)
        inputs[field] = other.name if other else ""
    settings = technique.model_dump(mode="json", exclude=set(technique.references()))
    identity: dict[str, Any] = {
        "technique": technique.name,
        "version": technique.version,
        "settings": settings,
        "outside": technique.outside(),
        "inputs": inputs,
        "seed": recipe.seed,
    }
    if technique.budgeted:
        identity |= {"budget": asdict(recipe.budget), "hardware": [hardware.name, hardware.count]}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{technique.name}-{digest[:16]}"


def stored(place: Path) -> dict[str, Any] | None:
    """What making the artifact at `place` used, {} when that is not known, None when there is no such artifact.

    Raises:
        DamagedArtifact: the artifact is there, but its bytes are not those that were written.
    """
    if not place.exists():
        return None
    try:
        artifact.verify(place)
    except DamagedArtifact:
        raise
    except FileError as error:
        raise DamagedArtifact(place, "it has no manifest") from error
    try:
        record: dict[str, Any] = json.loads(_record(place).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record


def keep(place: Path, record: Mapping[str, Any]) -> None:
    """Write beside an artifact what making it used."""
    artifact.write_whole(_record(place), json.dumps(record, indent=1) + "\n")


def discard(place: Path) -> None:
    """Remove an artifact and its record."""
    shutil.rmtree(place, ignore_errors=True)
    _record(place).unlink(missing_ok=True)


def scratch(place: Path) -> Path:
    """The folder in which the step that makes `place` keeps its restart points."""
    return place.parent / SCRATCH / place.name


def tidy(folder: Path) -> None:
    """Remove what killed processes left in a store that is held: drafts, and scratch folders that nothing can go on from."""
    artifact.sweep(folder)
    for place in (folder / SCRATCH).glob("*"):
        inner = [place, *(path for path in place.rglob("*") if path.is_dir())]
        for each in inner:
            artifact.sweep(each)
        if (folder / place.name).exists() or not any(path.is_file() for path in place.rglob("*")):
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder against a second process.

    Raises:
        ShoestringError: another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ShoestringError(f"{folder}: another shoestring works here; wait for it or choose another --out") from error
            yield
    except OSError as error:
        raise file_error(folder, error) from error


def _record(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")
