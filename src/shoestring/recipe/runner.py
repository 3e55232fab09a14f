"""Carry out a recipe: each step predicted, done or taken from the store, measured, and written into the ledger."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import torch
import yaml

from shoestring import artifact, measure
from shoestring.artifact import PARTS, write_whole
from shoestring.errors import DeviceError, FileError, ShoestringError, file_error
from shoestring.files import read_object, to_json
from shoestring.infer.probe import probe as probe_decoding
from shoestring.measure import Hardware, Meter, Usage
from shoestring.model.probe import probe as probe_checkpoints
from shoestring.recipe import ledger, rank, rows, store
from shoestring.recipe.forecast import Forecast, ahead, informed, left, predict, refuse_impossible, seconds_left
from shoestring.recipe.ledger import Row
from shoestring.recipe.link import link_model
from shoestring.recipe.place import claim
from shoestring.recipe.recipe import Recipe, Step
from shoestring.recipe.spent import Spent
from shoestring.technique import Sketch, State, Task, Watch
from shoestring.train.probe import probe as probe_training

PROBES = {"train": probe_training, "decoding": probe_decoding, "checkpoint": probe_checkpoints}
"""What a calibration times beside the machine itself, by room."""


class Observer(Protocol):
    """Who looks on while a recipe runs."""

    def note(self, text: str) -> None:
        """A line that stays."""

    def progress(self, text: str, done: float | None = None) -> None:
        """A passing status, and the share of the step that is done."""

    def begin(self, step: Step, number: int, of: int, forecast: Forecast) -> None:
        """A step starts."""

    def end(self, row: Row) -> None:
        """A step has ended."""


class Silent:
    """Nobody looks on."""

    def note(self, text: str) -> None: ...
    def progress(self, text: str, done: float | None = None) -> None: ...
    def begin(self, step: Step, number: int, of: int, forecast: Forecast) -> None: ...
    def end(self, row: Row) -> None: ...


@dataclass(slots=True)
class Run:
    """A recipe that is being carried out, or has been."""

    recipe: Recipe
    out: Path
    store: Path
    hardware: Hardware
    rows: list[Row] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    sketch: Sketch = field(default_factory=Sketch)
    started: str = ""
    spent: float = 0.0
    """Seconds of the budget that went before the first step: a machine calibrated again."""

    @property
    def state(self) -> State:
        """What has been made so far."""
        return next(reversed(self.states.values()), {})

    @property
    def used(self) -> Usage:
        """What the steps so far used, those taken from the store included at what they used when they were made."""
        return measure.total(row.measured for row in self.rows)


def run(recipe: Recipe, out: Path, store_folder: Path | None = None, observer: Observer | None = None) -> Run:
    """Carry out a recipe in the folder `out`; what is in the store already is not done again.

    Args:
        store_folder: where artifacts are kept, `store` beside `out` when not given.
        observer: who looks on.

    Raises:
        FileError: before anything runs, when `out` holds something that is not a run's.
        BudgetError: before anything runs, when the forecast does not fit the budget.
        ShoestringError: a step's own complaint, with its name.
    """
    observer, out = observer or Silent(), Path(out)
    place = store_folder or out.resolve().parent / "store"
    claim(out, place)
    with store.held(out):
        artifact.sweep(out)
        store.open_store(place)
        count = _threads(out, observer)
        os.environ["OMP_NUM_THREADS"] = str(count)  # so that the machine is known, and calibrated, by this number
        torch.set_num_threads(count)
        hardware, spent = prepare(recipe, observer)
        refuse_impossible(recipe, predict(recipe, hardware, spent), spent)
        current = Run(recipe, out, place, hardware, started=_now(), spent=spent)
        _write(current, "running")  # first, so that a run.json always proves the rest to be ours
        write_whole(out / "recipe.yaml", yaml.safe_dump(recipe.to_json(), sort_keys=False))
        for number, step in enumerate(recipe.steps):
            _carry_out(current, number, step, observer)
            _write(current, "running")
            if step.technique.gives == "checkpoint" and (note := link_model(out, current.state["checkpoint"])):
                observer.note(note)
        _write(current, "finished")
    return current


def prepare(recipe: Recipe, observer: Observer) -> tuple[Hardware, float]:
    """The machine, calibrated when a step's result follows from the budget, and the seconds of the budget that this took.

    The first calibration of a machine is none of the run's; one that is taken again, because the machine has changed, is.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device: cuda is not there; use --set device=cpu or auto")
    hardware = measure.detect(recipe.device)
    if hardware.device == "cuda" and recipe.ranks > torch.cuda.device_count():
        raise DeviceError(f"ranks: {recipe.ranks} processes need a GPU each, and {torch.cuda.device_count()} are there")
    if not any(step.technique.budgeted for step in recipe.steps):
        return hardware, 0.0
    if not hardware.calibrated:
        observer.note("calibrating this machine, once: what do its matrix products and training steps really reach?")
    began = time.perf_counter()
    calibrated = measure.calibrate(hardware, PROBES, observer.note, progress=observer.progress)
    spent = time.perf_counter() - began
    if not hardware.calibrated or calibrated.calibrated == hardware.calibrated:
        return calibrated, 0.0
    observer.note(f"calibrating again took {spent:.0f} s of the run's budget")
    return calibrated, spent


def _threads(out: Path, observer: Observer) -> int:
    """Processor threads of the run. One that goes on keeps the number it began with: sums in another order end in other bits."""
    begun = out / "run.json"
    if begun.is_file() and "OMP_NUM_THREADS" not in os.environ:
        try:
            return int(read_object(begun)["threads"])
        except (FileError, ValueError, KeyError, TypeError):
            observer.note(f"{begun}: can't be read; taking the number of threads anew")
    count = measure.free_threads()
    if count < measure.threads():
        observer.note("one thread: other work keeps the cores busy, and threads that wait for each other are slower than one")
    return count


def _carry_out(current: Run, number: int, step: Step, observer: Observer) -> None:
    """One step: its key, then what is stored under it or what is made now, then its row."""
    recipe, state = current.recipe, current.state
    later, remaining = recipe.steps[number + 1 :], left(recipe.budget, current.used, current.spent)
    name = store.key(step, recipe, state, current.states, current.hardware)
    forecast = ahead(step, later, current.sketch, remaining, _as_it_stands(current.hardware))
    with store.making(current.store, name, recipe.budget, observer.note) as (place, scratch):
        kept = store.stored(place, observer.note)
        observer.begin(step, number + 1, len(recipe.steps), forecast)
        if kept is None:
            sketch, seconds = informed(current.sketch, later, remaining), seconds_left(forecast, current.hardware)
            task = Task(place, scratch, current.hardware, recipe.seed, sketch, dict(current.states), seconds, recipe.ranks)
            kept = _make(current, step, task, observer, forecast)
        row = rows.row(step, place, kept, forecast)
    current.states[step.name] = {**state, step.technique.gives: place}
    current.rows.append(row)
    current.sketch = step.technique.observe(forecast.sketch, current.state)
    rows.judge(recipe, current.rows, row)
    observer.end(row)


def _make(current: Run, step: Step, task: Task, observer: Observer, forecast: Forecast) -> store.Kept:
    """Do a step that is not stored; what it was predicted to use and used is kept beside the artifact."""
    used, started = _apply(step, current.state, task, observer)
    kept = store.Kept(
        forecast.usage,
        forecast.disk,
        used,
        started,
        ledger.versions(),
        current.hardware.name,
        asdict(current.recipe.budget),
        reused=False,
    )
    store.keep(task.out, kept)
    return kept


def _as_it_stands(hardware: Hardware) -> Hardware:
    """The machine with what this process holds by now: libraries that earlier steps loaded stay, and count in every peak."""
    if hardware.device != "cpu":
        return hardware
    return hardware.with_(reached={**hardware.reached, "process.bytes": measure.resident_bytes(trimmed=True)})


def _apply(step: Step, state: State, task: Task, observer: Observer) -> tuple[Usage, str]:
    """Do the step under its meter: what it used, and when it began."""
    spent = Spent(task.scratch, Meter(task.hardware))
    started = _now()
    torch.manual_seed(task.seed)
    try:
        with spent.kept(), spent.meter:
            rank.apply(step.technique, state, task, Watch(spent.meter, observer.note, spent.watching(observer.progress)))
    except ShoestringError as error:
        raise _located(step, error) from None
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        raise ShoestringError(f"steps.{step.name}: out of memory; lower its batch, context or size") from error
    except OSError as error:
        raise file_error(task.out, error) from error
    return spent.usage, started


def _out_of_memory(error: Exception) -> bool:
    """PyTorch has a class of its own for this on a GPU only; on a CPU it is told from the allocator's words."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _located(step: Step, error: ShoestringError) -> ShoestringError:
    """The same error, its text led by the step's name where it does not name it itself."""
    if f"steps.{step.name}" not in str(error):
        error.args = (f"steps.{step.name}: {error}",)
    return error


def _write(current: Run, status: str) -> None:
    """The ledger and the run's own record, each whole."""
    out = current.out.resolve()

    def relative(path: Path) -> str:
        return os.path.relpath(path.resolve(), out)

    states = {name: {part: relative(state[part]) for part in PARTS if part in state} for name, state in current.states.items()}
    ledger.write(current.out / "ledger.jsonl", current.rows)
    record = {
        "recipe": current.recipe.name,
        "status": status,
        "started": current.started,
        "ended": _now(),
        "hardware": asdict(current.hardware),
        "threads": torch.get_num_threads(),
        "versions": ledger.versions(),
        "budget": asdict(current.recipe.budget),
        "used": current.used.to_json(),
        "states": states,
        "store": relative(current.store),
    }
    write_whole(current.out / "run.json", to_json(record) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
