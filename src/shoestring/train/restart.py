"""Restart points: all that a killed training run needs to go on bit for bit, in safetensors and JSON.

A restart point is an artifact of its own, `step-<number>` in the run's scratch folder: whole or not there, with checksums.
The newest two are kept; a damaged one is named and the one before it is used.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shoestring import artifact
from shoestring.errors import DamagedArtifact, FileError, file_error
from shoestring.files import read_object, to_json
from shoestring.model.checkpoint.tensors import write
from shoestring.train.optimizers import trainable
from shoestring.train.schedule import Course

KEPT = 2


@dataclass
class Place:
    """Where a run stands, between two steps."""

    course: Course
    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Tokens read."""
    elapsed: float = 0.0
    """Seconds spent, in all processes together."""
    log: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last record of the log."""


def save(scratch: Path, identity: str, place: Place, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a restart point and drop all but the newest.

    Raises:
        FileError: the place can't be written. DiskFull: no room is left; the points of before are still there.
    """
    tensors = {f"model.{name}": tensor for name, tensor in _learned(model).items()}
    scalars: dict[str, Any] = {}
    for name, values in _optimizer_state(model, optimizer).items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = value
            else:
                scalars[f"{name}.{key}"] = value
    tensors["random.cpu"] = torch.get_rng_state()
    device = next(iter(trainable(model).values())).device
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    with artifact.writing(scratch / f"step-{place.step:09d}", "checkpoint") as folder:
        write(tensors, folder / "state.safetensors")
        record = {"identity": identity, "place": asdict(place), "optimizer": scalars}
        artifact.write_whole(folder / "state.json", to_json(record, indent=None))
    for old in _points(scratch)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(
    scratch: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer, note: Callable[[str], None]
) -> Place | None:
    """Put model, optimizer and random generators where the newest sound restart point left them; None when there is none."""
    try:
        artifact.sweep(scratch)
    except OSError as error:
        raise file_error(scratch, error) from error
    for point in reversed(_points(scratch)):
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
        _restore(tensors, record["optimizer"], model, optimizer)
        place = record["place"]
        return Place(**{**place, "course": Course(**place["course"])})
    return None


def _restore(tensors: dict[str, Tensor], scalars: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for name, tensor in _learned(model).items():
            tensor.copy_(tensors[f"model.{name}"])
    state = optimizer.state_dict()
    names = _names(model, optimizer)
    for index, name in enumerate(names):
        start = f"optimizer.{name}."
        found: dict[str, Any] = {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}
        found |= {key[len(name) + 1 :]: value for key, value in scalars.items() if key.startswith(f"{name}.")}
        if found:
            state["state"][index] = found
    optimizer.load_state_dict(state)
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors:
        device = next(iter(trainable(model).values())).device
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


def _learned(model: nn.Module) -> dict[str, Tensor]:
    """What training may change: trainable parameters and saved buffers. Frozen weights are the caller's."""
    buffers = {name for name, _ in model.named_buffers()} & set(model.state_dict())
    return {**trainable(model), **{name: b for name, b in model.named_buffers() if name in buffers}}


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Parameters' names in the order in which the optimizer numbers them."""
    names = {id(parameter): name for name, parameter in trainable(model).items()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    state = optimizer.state_dict()["state"]
    return {name: state[index] for index, name in enumerate(_names(model, optimizer)) if index in state}


def _points(scratch: Path) -> list[Path]:
    return sorted(path for path in scratch.glob("step-*") if path.is_dir())
