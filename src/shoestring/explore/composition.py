"""What a factorial over a recipe's steps found: its runs, how their figures combine, and the record of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from shoestring.explore.factorial import Cell, Combination, Effect
from shoestring.recipe import versions


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a composition.

    Attributes:
        run: its folder, relative to the composition's.
        steps: how many it has, evaluations counted.
        reused: how many of them came from the store.
        artifacts: what its steps made, by their names in the store.
    """

    cell: Cell
    seed: int
    run: str
    steps: int
    reused: int
    artifacts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Composition:
    """What a factorial found."""

    recipe: str
    factors: tuple[str, ...]
    repeats: int
    trials: list[Trial]
    combinations: list[Combination]
    effects: list[Effect]
    missing: dict[str, str]
    """Figures that could not be compared, with the reason."""
    started: str
    hardware: dict[str, Any]
    """The machine, as `measure.Hardware` says it."""
    ended: str = field(default_factory=lambda: now())
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def reused(self) -> int:
        """Steps that came from the store, over all runs."""
        return sum(trial.reused for trial in self.trials)

    @property
    def steps(self) -> int:
        """Steps of all runs together."""
        return sum(trial.steps for trial in self.trials)

    @property
    def distinct(self) -> int:
        """Different artifacts that these steps make: what runs have in common counts once."""
        return len(frozenset().union(*(trial.artifacts for trial in self.trials)))

    @property
    def computed(self) -> int:
        """Steps that were carried out, over all runs."""
        return self.steps - self.reused

    def to_json(self) -> dict[str, Any]:
        """What `compose.json` holds."""
        return {
            "recipe": self.recipe,
            "factors": list(self.factors),
            "repeats": self.repeats,
            "steps": self.steps,
            "distinct": self.distinct,
            "computed": self.computed,
            "reused": self.reused,
            "started": self.started,
            "ended": self.ended,
            "hardware": self.hardware,
            "versions": self.versions,
            "cells": [_written(trial, self.factors) for trial in self.trials],
            "combinations": [asdict(combination) for combination in self.combinations],
            "effects": [asdict(effect) for effect in self.effects],
            "missing": self.missing,
        }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _written(trial: Trial, factors: Sequence[str]) -> dict[str, Any]:
    return {
        "present": [name for name in factors if name in trial.cell.present],
        "repeat": trial.cell.repeat,
        "seed": trial.seed,
        "run": trial.run,
        "steps": trial.steps,
        "reused": trial.reused,
        "figures": {name: quantity.to_json() for name, quantity in trial.cell.figures.items()},
    }
