"""What a recipe says: a budget and a list of steps, read from YAML, checked whole before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shoestring import files, measure
from shoestring.artifact import PARTS
from shoestring.errors import FileError, SettingError, nearest, shown
from shoestring.evaluate import Evaluate
from shoestring.recipe import rooms
from shoestring.recipe.budgets import UNITS, Faults, budget
from shoestring.recipe.shipped import find_recipe
from shoestring.technique import Budget, Technique, configure

_OUTSIDE_NAME, LONGEST_NAME = re.compile(r"[^\w .-]"), 80
"""What is no part of a recipe's name, which becomes the name of a folder, and how many characters it may have."""


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
    ranks: int = 1
    """Processes that share a step that trains."""

    def to_json(self) -> dict[str, Any]:
        """The resolved recipe, every setting written out: what it says can be run again."""
        limits = {
            key: measure.written(value, unit) for key, unit in UNITS.items() if (value := getattr(self.budget, key)) is not None
        }
        steps = [_written(step) for step in self.steps if not step.automatic]
        quality = [step.technique.model_dump(mode="json") for step in self.steps if step.automatic]
        return {
            "name": self.name,
            "seed": self.seed,
            "device": self.device,
            "ranks": self.ranks,
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
    name: str = "recipe"
    budget: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    ranks: int = Field(default=1, ge=1, le=64)
    quality: dict[str, Any] | bool = True

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name.strip(". ") in ("", "store") or len(name) > LONGEST_NAME or _OUTSIDE_NAME.search(name):
            raise ValueError(f"must be a name of at most {LONGEST_NAME} letters, digits, spaces and . - _ (and not 'store')")
        return name


def load_recipe(path: Path | str, sets: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and check it.

    Args:
        path: a YAML file, or the name of a recipe that comes with Shoestring, such as "quickstart".
        sets: `key=value` changes with dotted keys, such as `steps.pretrain.optimizer=muon` or `budget.time=2 min`.

    Raises:
        FileError: the file can't be read, or is not YAML.
        SettingError: a key or a value does not fit, or a step needs what no step before it makes.
    """
    path = find_recipe(path)
    content = files.read_yaml(path)
    if not isinstance(content, dict):
        raise FileError(f"{path}: a recipe is a mapping with the key 'steps'")
    return build({"name": _OUTSIDE_NAME.sub("-", Path(path).stem).strip("-. ")[:LONGEST_NAME] or "recipe", **content}, sets)


def build(content: Mapping[str, Any], sets: Sequence[str] = ()) -> Recipe:
    """A recipe from plain data, as `load_recipe` reads it from a file.

    Raises:
        SettingError: as `load_recipe`; everything that is wrong is said at once.
    """
    faults = Faults()
    named = _named(content.get("steps"), faults)
    content = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    for change in sets:
        with faults.gathered():
            _set(change, named, content)
    raw = _Raw.model_construct(
        steps=[None], **{key: content[key] for key in ("budget", "quality") if isinstance(content.get(key), dict)}
    )
    with faults.gathered():
        raw = configure(_Raw, {**content, "steps": [None]} if named else content, "recipe")
    limits, evaluation = Budget(), None
    with faults.gathered():
        limits = budget(raw.budget)
    if raw.quality is not False:
        with faults.gathered():
            evaluation = configure(Evaluate, {} if raw.quality is True else raw.quality, "quality")
    steps = _built(named, faults)
    if evaluation is not None:
        steps = _with_quality(steps, evaluation)
    # A step that could not be built may be what the others need: that is seen once it can.
    if len(steps) >= len(named):
        with faults.gathered():
            check(steps)
    faults.refuse()
    return Recipe(raw.name, steps, limits, raw.seed, raw.device, raw.ranks)


def check(steps: Sequence[Step]) -> None:
    """See that each step finds what it needs.

    Raises:
        SettingError: names every step that does not.
    """
    made: set[str] = set()
    earlier: dict[str, str] = {}
    wrong = Faults()
    for step in steps:
        for part in step.technique.reads:
            if part not in made:
                makers = sorted(name for name, kind in rooms.techniques().items() if kind.gives == part)
                wrong.append(f"steps.{step.name}: needs a {part}, and no step before it makes one (such as {', '.join(makers)})")
        for key, name in step.technique.references().items():
            if name not in earlier:
                wrong.append(f"steps.{step.name}.{key}: {shown(name)} is not an earlier step; {nearest(name, earlier)}")
            elif earlier[name] != "checkpoint":
                models = [other for other, part in earlier.items() if part == "checkpoint"]
                wrong.append(f"steps.{step.name}.{key}: {shown(name)} makes no checkpoint; {nearest(name, models)}")
        made.add(step.technique.gives)
        earlier[step.name] = step.technique.gives
    wrong.refuse()
    assert made <= set(PARTS)


_Named = dict[str, tuple[str, dict[str, Any]]]
"""Step name -> technique name and settings."""


def _named(entries: Any, faults: Faults) -> _Named:
    """The entries of `steps` by name. A step is named by `as`, else by its technique, counted when it recurs."""
    named: _Named = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        with faults.gathered():
            technique, settings, name = _entry(entry, number)
            count = 1 + sum(other == name or other.startswith(f"{name}-") for other in named)
            if count > 1 and "as" in entry:
                raise SettingError(f"steps: two steps are called {shown(name)}; give one another name with 'as'")
            named[name if count == 1 else f"{name}-{count}"] = (technique, settings)
    return named


def _entry(entry: Any, number: int) -> tuple[str, dict[str, Any], str]:
    """An entry of `steps`: its technique, its settings and the name it asks for."""
    entry = {entry: {}} if isinstance(entry, str) else entry
    if not isinstance(entry, dict):
        raise SettingError(f"steps: entry {number}, {shown(entry)}, is not of the form '- technique: {{settings}}'")
    keys = [key for key in entry if key != "as"]
    if len(keys) != 1:
        named = shown(", ".join(str(key) for key in keys), quote=False)
        raise SettingError(f"steps: entry {number} must name one technique, it names {len(keys)}: {named}")
    technique, settings = str(keys[0]), entry[keys[0]]
    if settings is not None and not isinstance(settings, dict):
        raise SettingError(f"steps.{shown(technique, quote=False)}: its settings must be a mapping, got {shown(settings)}")
    name = entry.get("as") or technique
    if not isinstance(name, str):
        raise SettingError(f"steps: entry {number} is called {shown(name)}; 'as' takes a name")
    return technique, dict(settings or {}), name


def _set(change: str, named: _Named, top: dict[str, Any]) -> None:
    """Carry out one `key=value` in place."""
    key, equals, text = change.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise SettingError(
            f"--set {shown(change, quote=False)}: write KEY=VALUE, such as steps.pretrain.optimizer=adamw or budget.time='2 min'"
        )
    where, keys = f"--set {shown(key, quote=False)}", [key for key in _Raw.model_fields if key not in ("name", "steps")]
    value = files.parse_yaml(text, where)
    if path[0] == "steps" and len(path) >= 3:
        # A step's own name may hold dots.
        length = next((n for n in range(len(path) - 1, 1, -1) if ".".join(path[1:n]) in named), 0)
        if not length:
            raise SettingError(f"{where}: no step called {shown(path[1])}; {nearest(path[1], named)}")
        target, path = named[".".join(path[1:length])][1], path[length:]
    elif path[0] in keys:
        target = top
        if len(path) > 1 and not isinstance(top.get(path[0]), dict):
            top[path[0]] = {}
    else:
        raise SettingError(f"{where}: no such key; {nearest(path[0], [*keys, 'steps.STEP.SETTING'])}")
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise SettingError(f"{where}: {shown(part)} has no settings inside")
    target[path[-1]] = value


def _built(named: _Named, faults: Faults) -> tuple[Step, ...]:
    """The steps with their settings checked."""
    steps = []
    for name, (technique, settings) in named.items():
        with faults.gathered():
            kind = rooms.find(technique, "steps")
            steps.append(Step(name, configure(kind, settings, f"steps.{shown(name, quote=False)}")))
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
