"""Restart points: all that a killed training run needs to go on bit for bit, in safetensors and JSON.

A restart point is an artifact of its own, `step-<number>` in the run's scratch folder: whole or not there, with checksums.
The newest two are kept; a damaged one is named and the one before it is used.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor

from shoestring import artifact
from shoestring.errors import DamagedArtifact, FileError, file_error
from shoestring.files import read_object, to_json
from shoestring.model.checkpoint.tensors import write
from shoestring.train.parts import Job, Parts

if TYPE_CHECKING:
    from torch.distributed.checkpoint.stateful import Stateful

KEPT = 2


def identity(job: Job, parts: Parts) -> str:
    """What a restart point must agree with to belong to a run: all that its result depends on but the batches."""
    settings, plan = job.settings.model_dump(exclude={"log_every", "checkpoint_every"}), job.plan
    span = (plan.steps, plan.learning_rate, plan.warmup, plan.decay, plan.micro_batches)
    shapes = {name: list(parameter.shape) for name, parameter in parts.learned.items()}
    return json.dumps([settings, span, shapes], sort_keys=True)


def save(scratch: Path, identity: str, step: int, parts: Mapping[str, Stateful]) -> None:
    """Write a restart point and drop all but the newest.

    Raises:
        FileError: the place can't be written. DiskFull: no room is left; the points of before are still there.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for part, kept in parts.items():
        for name, value in kept.state_dict().items():
            if isinstance(value, Tensor):
                tensors[f"{part}:{name}"] = value
            else:
                plain.setdefault(part, {})[name] = value
    with artifact.writing(scratch / f"step-{step:09d}", "checkpoint") as folder:
        write(tensors, folder / "state.safetensors")
        artifact.write_whole(folder / "state.json", to_json({"identity": identity, "parts": plain}, indent=None))
    for old in points(scratch)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(scratch: Path, identity: str, parts: Mapping[str, Stateful], note: Callable[[str], None]) -> bool:
    """Put every part where the newest sound restart point left it; False when there is none."""
    try:
        artifact.sweep(scratch)
    except OSError as error:
        raise file_error(scratch, error) from error
    for point in reversed(points(scratch)):
        try:
            artifact.verify(point)
            record = read_object(point / "state.json")
            tensors = load_file(point / "state.safetensors")
        except DamagedArtifact as error:
            note(f"restart point left out: {error}")
            shutil.rmtree(point, ignore_errors=True)
            continue
        except FileError:  # a folder without a manifest is no restart point of ours
            continue
        if record["identity"] != identity:
            note(f"{point.name}: a restart point of other settings; training starts from the beginning")
            continue
        for part, kept in parts.items():
            start = f"{part}:"
            found = {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}
            kept.load_state_dict({**record["parts"].get(part, {}), **found})
        return True
    return False


def points(scratch: Path) -> list[Path]:
    """The restart points in a folder, oldest first."""
    return sorted(path for path in scratch.glob("step-*") if path.is_dir())
