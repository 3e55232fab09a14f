"""The store: each step's artifact under a key that follows from its settings, its inputs and its technique's version.

A run that stopped goes on where it stopped, and two recipes that begin alike share their beginning. Beside an artifact
`NAME` stands `NAME.json`: what making it used, so that a reused step still has its cost.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shoestring import artifact
from shoestring.drafts import locked
from shoestring.errors import DamagedArtifact, FileError, ShoestringError, file_error, shown
from shoestring.files import read_object, to_json
from shoestring.measure import UNITS, Hardware, Quantity, Usage
from shoestring.recipe import rooms
from shoestring.recipe.place import LOCK
from shoestring.recipe.recipe import Recipe, Step
from shoestring.recipe.spent import resumable
from shoestring.technique import Budget, State, need

SCRATCH = ".scratch"
"""The folder in a store where steps keep their restart points."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of the making of a stored artifact: the file beside it says so."""

    predicted: Usage | None = None
    predicted_disk: Quantity | None = None
    measured: Usage | None = None
    started: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hardware: str = ""
    budget: dict[str, float | None] | None = None
    seen: dict[str, list[int]] = field(default_factory=dict)
    """Size and time of change of each file of the artifact when its checksums were last right."""
    lost: str = "made by a process that was killed before it wrote its cost"
    """Why nothing is known, where nothing is."""
    reused: bool = True

    def to_json(self) -> dict[str, Any]:
        """The record to keep."""
        figures = {"predicted": self.predicted, "predicted_disk": self.predicted_disk, "measured": self.measured}
        written = {name: figure.to_json() for name, figure in figures.items() if figure is not None}
        about = {"started": self.started, "versions": self.versions, "hardware": self.hardware, "budget": self.budget}
        return {**written, **about, "seen": self.seen}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Kept:
        """What `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is something else.
        """
        found = cls(
            Usage.from_json(record["predicted"]),
            Quantity.from_json(record["predicted_disk"]),
            Usage.from_json(record["measured"]),
            str(record["started"]),
            {str(name): str(version) for name, version in record["versions"].items()},
            str(record["hardware"]),
            None if record["budget"] is None else dict(record["budget"]),
            dict(record.get("seen", {})),
        )
        for usage in (found.predicted, found.measured):
            for quantity in (found.predicted_disk, *(getattr(usage, name) for name in UNITS)):
                if quantity is None or not isinstance(quantity.value, int | float | None):
                    raise TypeError("a figure that is no number")
        return found


def key(step: Step, recipe: Recipe, state: State, earlier: Mapping[str, State], hardware: Hardware) -> str:
    """The name of a step's artifact: technique and a digest of all that its result depends on."""
    technique = step.technique
    parts = (*technique.reads, *technique.uses)
    inputs: dict[str, str] = {part: _made(path) for part in parts if (path := state.get(part))}
    makers = {other.name: other.technique for other in recipe.steps}
    for setting, name in technique.references().items():
        inputs[setting] = _made(need(earlier[name], makers[name].gives, f"steps.{step.name}.{setting}"))
    settings = technique.model_dump(mode="json", exclude=set(technique.references()))
    identity: dict[str, Any] = {
        "technique": technique.name,
        "version": [technique.version, rooms.version(technique.room)],
        "settings": settings,
        "outside": technique.outside(),
        "inputs": inputs,
        "seed": recipe.seed,
    }
    if "checkpoint" in (*technique.reads, technique.gives):  # a model runs: its numbers are those of the device
        identity |= {"device": hardware.device, "resolved": technique.resolved(hardware.device)}
    if technique.shared and recipe.ranks > 1:  # sums in another order end in other bits
        identity["ranks"] = recipe.ranks
    if technique.budgeted:
        identity |= {"budget": asdict(recipe.budget), "hardware": [hardware.name, hardware.count]}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{technique.name}-{digest[:16]}"


def _made(path: Path) -> str:
    """What an input is: its name, which is its key, and what is in it: it may have been made anew with other bits."""
    return f"{path.name}:{artifact.manifest(path).digest[:16]}"


def place(folder: Path, name: str, budget: Budget) -> Path:
    """Where the artifact of a key stands. One that a budget cut short is not that of another budget, which gets its own place."""
    plain = folder / name
    try:
        cut = artifact.manifest(plain).about.get("cut")
    except FileError:
        return plain
    if not cut or read(plain).budget == asdict(budget):
        return plain
    return folder / f"{name}-{hashlib.sha256(json.dumps(asdict(budget)).encode()).hexdigest()[:8]}"


def stored(place: Path, note: Callable[[str], None]) -> Kept | None:
    """What is known of the making of the artifact at `place`; None when none is there, or none that is whole (after a note)."""
    if not os.path.lexists(place):
        return None
    try:
        if place.is_symlink() or not place.is_dir():
            raise DamagedArtifact(place, "a link" if place.is_symlink() else "a file of this name")
        kept = read(place, note)
        unchanged = kept.seen == _files(place)
        name = (artifact.manifest if unchanged else artifact.verify)(place).name
        if name != place.name:
            raise DamagedArtifact(place, f"it is {shown(name, quote=False)} under another name")
    except FileError as error:
        aside = discard(place)
        note(f"{error}; rebuilding it" + (f"; what was there is now {aside}" if aside else ""))
        return None
    if not unchanged and kept.measured is not None:
        keep(place, kept)
    return kept


def read(place: Path, note: Callable[[str], None] = lambda text: None) -> Kept:
    """The record beside an artifact; when it can't be read, a note, and nothing is known."""
    file = _record(place)
    if not os.path.lexists(file):
        return Kept()
    try:
        return Kept.from_json(read_object(file))
    except (FileError, ValueError, TypeError, KeyError, AttributeError):
        note(f"{file}: can't be read; what this step cost is unknown")
        return Kept(lost=f"{file.name} can't be read")


def keep(place: Path, kept: Kept) -> None:
    """Write beside an artifact, whose files are known to be right, what making it used."""
    artifact.write_whole(_record(place), to_json(replace(kept, seen=_files(place)).to_json()) + "\n")


def discard(place: Path) -> Path | None:
    """Take away what stands in an artifact's place: all of an artifact is removed, else it is set aside as the path returned."""
    aside = None
    if place.is_dir() and not place.is_symlink() and not artifact.strangers(place):
        shutil.rmtree(place)
    else:
        numbers = (place.with_name(f"{place.name}.aside-{number}") for number in itertools.count(1))
        aside = place.rename(next(path for path in numbers if not os.path.lexists(path)))
    _record(place).unlink(missing_ok=True)
    return aside


@contextmanager
def making(folder: Path, name: str, budget: Budget, note: Callable[[str], None]) -> Iterator[tuple[Path, Path]]:
    """Hold a key against other processes: the place of its artifact, and the folder for restart points, which is the lock.

    Another process that makes the same artifact is waited for, and what it made is then there; when it is killed, its lock
    ends with it, and its restart points are there.
    """
    while True:
        there = place(folder, name, budget)
        scratch = folder / SCRATCH / there.name
        try:
            scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise file_error(scratch, error) from error
        with _locked(scratch, note) as held:
            # Whoever held it may have removed the folder, or made an artifact that its budget cut short.
            if held and there == place(folder, name, budget):
                yield there, scratch
                if there.exists():
                    shutil.rmtree(scratch, ignore_errors=True)
                return


@contextmanager
def _locked(scratch: Path, note: Callable[[str], None]) -> Iterator[bool]:
    """Lock a folder, after a wait where another process has; False when it is gone by then."""
    try:
        descriptor = os.open(scratch, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"{scratch.name}: another shoestring makes this now; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield scratch.exists() and os.path.samestat(os.fstat(descriptor), scratch.stat())
    finally:
        os.close(descriptor)


def open_store(folder: Path) -> None:
    """Make a store, or remove what killed processes left in it: drafts, and scratch folders that nothing can go on from."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
        artifact.sweep(folder)
        for scratch in (folder / SCRATCH).glob("*"):
            with locked(scratch) as free:
                if not free:  # of a process that works on it
                    continue
                for each in [scratch, *(path for path in scratch.rglob("*") if path.is_dir())]:
                    artifact.sweep(each)
                if (folder / scratch.name).exists() or not resumable(scratch):
                    shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise file_error(folder, error) from error


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


def _files(place: Path) -> dict[str, list[int]]:
    """Size and time of change of each file in a folder."""
    files = ((path, path.stat()) for path in place.rglob("*") if path.is_file())
    return {str(path.relative_to(place)): [found.st_size, found.st_mtime_ns] for path, found in files}


def _record(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")
