"""What a recipe says: a budget and a list of steps, read from YAML, checked whole before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from shoestring import measure
from shoestring.errors import FileError, SettingError, ShoestringError, file_error, nearest
from shoestring.evaluate import Evaluate
from shoestring.measure.units import Unit
from shoestring.recipe import rooms
from shoestring.technique import PARTS, Budget, Part, Technique, configure


@dataclass(frozen=True, slots=True)
class Step:
    """A technique with its place in a recipe."""

    name: str
    technique: Technique
    automatic: bool = False
    """An evaluation that stands behind a step because that step changes the model."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run, before it runs."""

    name: str
    steps: tuple[Step, ...]
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    device: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """The resolved recipe, every setting written out: what it says can be run again."""
        limits = {
            key: f"{value:g} {unit}"
            for key, unit in (("time", "s"), ("memory", "B"), ("energy", "J"), ("money", "USD"))
            if (value := getattr(self.budget, key)) is not None
        }
        steps = [_written(step) for step in self.steps if not step.automatic]
        quality = [step.technique.model_dump(mode="json") for step in self.steps if step.automatic]
        return {
            "name": self.name,
            "seed": self.seed,
            "device": self.device,
            "budget": limits,
            "quality": quality[0] if quality else False,
            "steps": steps,
        }

    def without(self, names: Sequence[str]) -> Recipe:
        """The same recipe with some steps left out, and the evaluations behind them.

        Raises:
            SettingError: another step needs one of them.
        """
        gone = set(names) | {f"evaluate@{name}" for name in names}
        shorter = replace(self, steps=tuple(step for step in self.steps if step.name not in gone))
        check(shorter.steps)
        return shorter


class _Raw(BaseModel):
    """The keys of a recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: list[Any] = Field(min_length=1)
    name: str = ""
    budget: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    quality: dict[str, Any] | bool = Field(default_factory=dict)


def load_recipe(path: Path | str, sets: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and check it.

    Args:
        path: a YAML file.
        sets: `key=value` changes with dotted keys, such as `steps.pretrain.optimizer=muon` or `budget.time=2 min`.

    Raises:
        FileError: the file can't be read, or is not YAML.
        SettingError: a key or a value does not fit, or a step needs what no step before it makes.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise file_error(path, error) from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise FileError(f"{path}: not YAML{place}; {getattr(error, 'problem', None) or 'check its syntax'}") from error
    if not isinstance(content, dict):
        raise FileError(f"{path}: a recipe is a mapping with the key 'steps'")
    return build({"name": path.stem, **content}, sets)


def build(content: Mapping[str, Any], sets: Sequence[str] = ()) -> Recipe:
    """A recipe from plain data, as `load_recipe` reads it from a file.

    Raises:
        SettingError: as `load_recipe`.
    """
    raw = configure(_Raw, content, "recipe")
    named = _named(raw.steps)
    top: dict[str, Any] = {"budget": dict(raw.budget), "seed": raw.seed, "device": raw.device, "quality": raw.quality}
    for change in sets:
        _set(change, named, top)
    if top["device"] not in ("auto", "cpu", "cuda"):
        raise SettingError(f"device: {top['device']!r}; {nearest(str(top['device']), ('auto', 'cpu', 'cuda'))}")
    steps = _built(named)
    if top["quality"] is not False:
        settings = {} if top["quality"] is True else top["quality"]
        steps = _with_quality(steps, configure(Evaluate, settings, "quality"))
    check(steps)
    return Recipe(raw.name, steps, budget(top["budget"]), int(top["seed"]), top["device"])


def budget(limits: Mapping[str, Any]) -> Budget:
    """Limits as people write them ("5 min", "8 GB", "1 kWh", "$2") in seconds, bytes, joules and dollars."""
    units: dict[str, Unit] = {"time": "s", "memory": "B", "energy": "J", "money": "USD"}
    for key in limits:
        if key not in units:
            raise SettingError(f"budget.{key}: no such limit; {nearest(key, units)}")
    found = {key: measure.parse(str(value), units[key], f"budget.{key}") for key, value in limits.items() if value is not None}
    return Budget(**found)


def check(steps: Sequence[Step]) -> None:
    """See that each step finds what it needs.

    Raises:
        SettingError: names every step that does not.
    """
    made: set[Part] = set()
    earlier: list[str] = []
    wrong = []
    for step in steps:
        for part in step.technique.reads:
            if part not in made:
                makers = sorted(name for name, kind in rooms.techniques().items() if kind.gives == part)
                wrong.append(f"steps.{step.name}: needs a {part}, and no step before it makes one (such as {', '.join(makers)})")
        for key, name in step.technique.references().items():
            if name not in earlier:
                wrong.append(f"steps.{step.name}.{key}: {name!r} is not an earlier step; {nearest(name, earlier)}")
        made.add(step.technique.gives)
        earlier.append(step.name)
    if wrong:
        raise SettingError("; ".join(wrong))
    assert made <= set(PARTS)


def _named(entries: Sequence[Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Step name -> technique name and settings. A step is named by `as`, else by its technique, counted when it recurs."""
    named: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, entry in enumerate(entries, start=1):
        entry = {entry: {}} if isinstance(entry, str) else entry
        if not isinstance(entry, dict):
            raise SettingError(f"steps: entry {number} is not of the form '- technique: {{settings}}'")
        keys = [key for key in entry if key != "as"]
        if len(keys) != 1:
            raise SettingError(
                f"steps: entry {number} must name one technique, it names {len(keys)}: {', '.join(map(str, keys))}"
            )
        technique, settings = keys[0], entry[keys[0]] or {}
        if not isinstance(settings, dict):
            raise SettingError(f"steps.{technique}: its settings must be a mapping, got {settings!r}")
        name = str(entry.get("as") or technique)
        count = 1 + sum(other == name or other.startswith(f"{name}-") for other in named)
        if count > 1 and "as" in entry:
            raise SettingError(f"steps: two steps are called {name!r}; give one another name with 'as'")
        named[name if count == 1 else f"{name}-{count}"] = (str(technique), dict(settings))
    return named


def _set(change: str, named: dict[str, tuple[str, dict[str, Any]]], top: dict[str, Any]) -> None:
    """Carry out one `key=value` in place."""
    key, equals, text = change.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise SettingError(f"--set {change}: write KEY=VALUE, such as steps.pretrain.optimizer=adamw or budget.time='2 min'")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingError(f"--set {change}: the value is not YAML") from error
    if path[0] == "steps" and len(path) >= 3:
        if path[1] not in named:
            raise SettingError(f"--set {key}: no step called {path[1]!r}; {nearest(path[1], named)}")
        target, path = named[path[1]][1], path[2:]
    elif path[0] in top:
        target = top
        if len(path) > 1 and not isinstance(top[path[0]], dict):
            top[path[0]] = {}
    else:
        raise SettingError(f"--set {key}: no such key; {nearest(path[0], [*top, 'steps.STEP.SETTING'])}")
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise SettingError(f"--set {key}: {part} has no settings inside")
    target[path[-1]] = value


def _built(named: Mapping[str, tuple[str, dict[str, Any]]]) -> tuple[Step, ...]:
    """The steps with their settings checked; all that is wrong is said at once."""
    steps, wrong = [], []
    for name, (technique, settings) in named.items():
        try:
            steps.append(Step(name, configure(rooms.find(technique, "steps"), settings, f"steps.{name}")))
        except ShoestringError as error:
            wrong.append(str(error))
    if wrong:
        raise SettingError("; ".join(wrong))
    return tuple(steps)


def _with_quality(steps: Sequence[Step], evaluation: Evaluate) -> tuple[Step, ...]:
    """The steps with an evaluation behind each that changes the checkpoint."""
    longer: list[Step] = []
    for step in steps:
        longer.append(step)
        if step.technique.gives == "checkpoint":
            longer.append(Step(f"evaluate@{step.name}", evaluation, automatic=True))
    return tuple(longer)


def _written(step: Step) -> dict[str, Any]:
    entry: dict[str, Any] = {step.technique.name: step.technique.model_dump(mode="json")}
    return entry if step.name == step.technique.name else {**entry, "as": step.name}
