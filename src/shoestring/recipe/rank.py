"""One step in several processes: the driver writes its task down, every rank reads it and applies the technique.

The ranks are started by `torchrun`. What each of them counts comes back to the driver as lines in the scratch folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from shoestring.artifact import write_whole
from shoestring.errors import ShoestringError
from shoestring.files import read_object, to_json
from shoestring.measure import Meter
from shoestring.recipe import rooms
from shoestring.technique import State, Task, Technique, Watch, configure
from shoestring.train import TrainingPlan

EVERY = 0.2
"""Seconds between two looks of the driver at what the ranks have written."""


def apply(technique: Technique, state: State, task: Task, watch: Watch) -> None:
    """Apply a technique here, or in `task.ranks` processes when it can be shared.

    Raises:
        ShoestringError: a rank's complaint.
    """
    if task.ranks == 1 or not technique.shared:
        technique.apply(state, task, watch)
        return
    lines, problems = task.scratch / "ranks.jsonl", task.scratch / "ranks.log"
    lines.write_text("", "utf-8")
    write_whole(task.scratch / "task.json", to_json(written(technique, state, task)))
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={task.ranks}", "-m", __name__]
    with problems.open("wb") as log, lines.open("r", encoding="utf-8") as counts:
        process = subprocess.Popen([sys.executable, *command, str(task.scratch / "task.json")], stdout=log, stderr=log)
        try:
            while (code := process.poll()) is None:
                _follow(counts.readlines(), watch)
                time.sleep(EVERY)
        finally:
            process.terminate()
            process.wait()
        _follow(counts.readlines(), watch)
    if code:
        raise RuntimeError(f"a rank ended with status {code}: {problems.read_text('utf-8', 'replace')[-2000:]}")


def written(technique: Technique, state: State, task: Task) -> dict[str, Any]:
    """A task, the technique and the state as plain data."""
    record = {"technique": technique.name, "settings": technique.model_dump(mode="json"), "state": state, "task": task}
    plain: dict[str, Any] = to_jsonable_python(record)
    later = task.sketch.outlook.later
    if later is not None:
        plain["task"]["sketch"]["outlook"]["later"] = [[step.name, step.model_dump(mode="json")] for step in later]
    return plain


def read(record: Mapping[str, Any]) -> tuple[Technique, State, Task]:
    """What `written` wrote."""
    sketch = record["task"]["sketch"]
    if sketch["outlook"]["later"] is not None:
        sketch["outlook"]["later"] = tuple(_technique(*step) for step in sketch["outlook"]["later"])
    if sketch["plan"] is not None:
        sketch["plan"] = TrainingPlan.model_validate(sketch["plan"])
    state = {part: Path(path) for part, path in record["state"].items()}
    return _technique(record["technique"], record["settings"]), state, TypeAdapter(Task).validate_python(record["task"])


def _technique(name: str, settings: Mapping[str, Any]) -> Technique:
    return configure(rooms.find(name, "steps"), settings, f"steps.{name}")


def _follow(lines: list[str], watch: Watch) -> None:
    """Give the watch what the ranks wrote."""
    for record in map(json.loads, lines):
        if "error" in record:
            raise ShoestringError(record["error"])
        if "note" in record:
            watch.note(record["note"])
        elif "progress" in record:
            watch.progress(record["progress"], record["done"])
        else:
            watch.meter.count(**record)


@contextmanager
def _group(device: str) -> Iterator[int]:
    """The process group of this run; the number of this process."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield torch.distributed.get_rank()
    finally:
        torch.distributed.destroy_process_group()


def main(file: Path) -> None:
    """Apply the task in `file` as one of the ranks that torchrun has started."""
    technique, state, task = read(read_object(file))
    torch.manual_seed(task.seed)
    with (file.parent / "ranks.jsonl").open("a", encoding="utf-8", buffering=1) as lines, _group(task.device) as rank:

        def tell(**record: Any) -> None:
            lines.write(json.dumps(record) + "\n")  # one write: lines of several processes don't mix

        def note(text: str) -> None:
            if rank == 0:
                tell(note=text)

        def progress(text: str, done: float | None = None) -> None:
            if rank == 0:
                tell(progress=text, done=done)

        try:
            with Meter(task.hardware) as meter:
                technique.apply(state, task, Watch(meter, note, progress))
        except ShoestringError as error:
            tell(error=str(error))
            raise
        finally:
            tell(flops=meter.flops, communication=meter.communication, peak=meter.usage.peak_memory.value or 0.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
