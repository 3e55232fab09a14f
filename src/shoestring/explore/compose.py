"""Run a recipe with every combination of some of its steps, and say whether their gains multiply (row R7).

The runs share one store, so what they have in common is made once. The fullest run goes first: a plan that all share then
leaves room for every step. A run's costs are the measured costs of all its steps, those from the store at what they cost
when they were made, so that runs are comparable; the evaluations that the runner puts in are left out of them, because
they measure and are not part of what is measured.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from shoestring.artifact import write_whole
from shoestring.errors import SettingError, nearest, shown
from shoestring.explore.composition import Composition, Trial, now
from shoestring.explore.factorial import Cell, combinations, effects, unusable
from shoestring.measure import Quantity, total
from shoestring.recipe import Observer, Recipe, Row, Run, Silent, run
from shoestring.recipe.place import refuse_foreign

MOST_FACTORS = 6
MOST_REPEATS = 1000
COSTS = ("seconds", "flops", "energy", "money")
SPEED = ("time_to_first_token", "tokens_per_second")


def compose(
    recipe: Recipe,
    factors: Sequence[str],
    out: Path,
    store: Path | None = None,
    observer: Observer | None = None,
    repeats: int = 1,
) -> Composition:
    """Carry out a recipe with every combination of some steps, present or absent, and compare.

    Args:
        recipe: its budget holds for each run.
        factors: names of steps, one to six of them.
        out: a folder for `compose.json` and the runs.
        store: where artifacts are kept, `store` beside `out` when not given.
        observer: who looks on.
        repeats: seeds per combination; from two on, intervals come from them.

    Raises:
        SettingError: a factor is no step of the recipe, or the recipe can't do without it.
        FileError: `out` holds something that is not a composition's.
        ShoestringError: a run's own complaint.
    """
    out, observer = Path(out), observer or Silent()
    factors = check(recipe, factors)
    if not 1 <= repeats <= MOST_REPEATS:
        raise SettingError(f"repeats: must be from 1 to {MOST_REPEATS}, got {shown(repeats)}")
    refuse_foreign(out, "compose.json", ("recipe", "factors"), also=("runs",))
    started = now()
    subsets = [set(subset) for size in range(len(factors), -1, -1) for subset in itertools.combinations(factors, size)]
    trials, judged = [], []
    for number, (repeat, present) in enumerate(itertools.product(range(repeats), subsets), start=1):
        name = "+".join(factor for factor in factors if factor in present) or "none"
        seed = recipe.seed + repeat
        observer.note(f"run {number} of {repeats * len(subsets)}: with {name}" + (f", seed {seed}" if repeats > 1 else ""))
        folder = out / "runs" / (name if repeats == 1 else f"{name}-seed{seed}")
        shorter = replace(recipe, seed=seed).without([factor for factor in factors if factor not in present])
        done = run(shorter, folder, store or out.resolve().parent / "store", observer)
        cell = Cell(frozenset(present), figures(done), repeat)
        reused = sum(row.reused for row in done.rows)
        artifacts = frozenset(row.key for row in done.rows)
        trials.append(Trial(cell, seed, os.path.relpath(folder, out), len(done.rows), reused, artifacts))
        judged.append(_windows(done))
    table = _paired([trial.cell for trial in trials], judged)
    found = Composition(
        recipe.name,
        factors,
        repeats,
        trials,
        combinations(table, factors),
        effects(table, factors),
        unusable(table),
        started,
        asdict(done.hardware),
    )
    write_whole(out / "compose.json", json.dumps(found.to_json(), indent=1) + "\n")
    return found


def check(recipe: Recipe, factors: Sequence[str]) -> tuple[str, ...]:
    """The factors, after it is sure that every combination of them is a recipe that runs.

    Raises:
        SettingError: says every factor that can't be one, and why.
    """
    steps = {step.name: step for step in recipe.steps if not step.automatic}
    wrong = [f"factors: no step called {shown(name)}; {nearest(name, steps)}" for name in factors if name not in steps]
    wrong += [f"factors: {shown(name)} is named twice" for name in sorted(set(factors)) if list(factors).count(name) > 1]
    if not 1 <= len(factors) <= MOST_FACTORS:
        runs = f"; {len(factors)} would be {2 ** len(factors)} runs" if factors else ""
        wrong.append(f"factors: name one to {MOST_FACTORS} steps{runs}")
    if wrong:
        raise SettingError("; ".join(wrong))
    chosen, made = set(factors), set()
    makers: dict[str, str] = {}
    for name, step in steps.items():
        for setting, other in step.technique.references().items():
            if other in chosen:
                wrong.append(f"factors: {other!r} can't be left out, steps.{name}.{setting} refers to it")
        for part in step.technique.reads:
            if part not in made and part in makers:
                wrong.append(f"factors: {makers[part]!r} can't be left out, steps.{name} needs the {part} it makes")
        if name in chosen:
            makers.setdefault(step.technique.gives, name)
        else:
            made.add(step.technique.gives)
    if wrong:
        raise SettingError("; ".join(dict.fromkeys(wrong)))
    return tuple(name for name in steps if name in chosen)


def figures(done: Run) -> dict[str, Quantity]:
    """What a run is compared by: the cost of its steps, bytes on disk and bits per byte of its last model, and how it answers.

    Steps that measure are left out of the costs.
    """
    rows = [row for row in done.rows if row.numbers is None]
    usage = total(row.measured for row in rows)
    found = {name: getattr(usage, name) for name in COSTS}
    kept = _last_checkpoint(done)
    if kept is not None:
        found["disk"] = kept.disk
    judged = [row.numbers["bits_per_byte"] for row in done.rows if row.numbers and "bits_per_byte" in row.numbers]
    if judged:
        found["bits_per_byte"] = Quantity.from_json(judged[-1])
    for row in done.rows:
        if row.room == "answer" and row.numbers:
            found |= {name: Quantity.from_json(row.numbers[name]) for name in SPEED}
    return found


def _windows(done: Run) -> tuple[list[int], list[float]]:
    """Bytes and losses of each window of a run's last evaluation; empty when it left none."""
    for row in reversed(done.rows):
        if row.numbers and "bits_per_byte" in row.numbers:
            try:
                record = json.loads((done.store / row.key / "windows.json").read_text("utf-8"))
                return [int(size) for size in record["bytes"]], [float(loss) for loss in record["losses"]]
            except (OSError, ValueError, KeyError, TypeError):
                break
    return [], []


def _paired(cells: list[Cell], judged: Sequence[tuple[list[int], list[float]]]) -> list[Cell]:
    """The cells with what each window adds to log(bits per byte), if all were judged on the same windows.

    Bits per byte is sum(losses) / sum(bytes) up to a constant; its logarithm changes to first order by
    loss / sum(losses) - bytes / sum(bytes) for each window.
    """
    sizes = judged[0][0]
    if len(sizes) < 2 or any(other != sizes or len(losses) != len(sizes) for other, losses in judged):
        return cells
    whole = [sum(losses) for _, losses in judged]
    influences = [
        [loss / total_loss - size / sum(sizes) for loss, size in zip(losses, sizes)]
        for (_, losses), total_loss in zip(judged, whole)
    ]
    return [replace(cell, influences={"bits_per_byte": each}) for cell, each in zip(cells, influences)]


def _last_checkpoint(done: Run) -> Row | None:
    """The row of the step that made the newest checkpoint."""
    newest = done.state.get("checkpoint")
    return next((row for row in reversed(done.rows) if newest is not None and row.key == newest.name), None)
