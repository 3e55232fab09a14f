"""Restart points: all that a killed training run needs to go on bit for bit, in safetensors and JSON.

A restart point is an artifact of its own, `step-<number>` in the run's scratch folder: whole or not there, with checksums.
The newest two are kept; a damaged one is named and the one before it is used. Each rank writes the pieces of tensors that it
holds, and reads whichever pieces make up its own: another number of ranks can go on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from shoestring import artifact
from shoestring.errors import DamagedArtifact, FileError, file_error
from shoestring.files import read_object, to_json
from shoestring.model.checkpoint.tensors import write
from shoestring.train.parallel.layout import divided, owned, piece
from shoestring.train.parallel.ranks import agreed, gathered, rank
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
    """Write a restart point and drop all but the newest. Each rank writes the pieces that it holds.

    Raises:
        FileError: the place can't be written. DiskFull: no room is left; the points of before are still there.
    """
    tensors, plain = _states(parts)
    path = scratch / f"step-{step:09d}"
    with artifact.writing(path, "checkpoint") if rank() == 0 else nullcontext() as draft:
        folder = agreed(draft)
        assert folder is not None
        _write(folder, tensors)
        everything = gathered(plain)  # and every rank has written
        if rank() == 0:
            kept = {part: {name: value for each in everything for name, value in each[part].items()} for part in plain}
            artifact.write_whole(folder / "state.json", to_json({"identity": identity, "parts": kept}, indent=None))
    if rank() == 0:
        for old in points(scratch)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def load(scratch: Path, identity: str, parts: Mapping[str, Stateful], note: Callable[[str], None]) -> bool:
    """Put every part where the newest sound restart point left it, however many ranks wrote it; False when there is none."""
    point = agreed(_newest(scratch, identity, note) if rank() == 0 else None)
    if point is None:
        return False
    plain, stored = read_object(point / "state.json")["parts"], _stored(point)
    for part, kept in parts.items():
        start = f"{part}:"
        own = {name[len(start) :]: pieces for name, pieces in stored.items() if name.startswith(start)}
        kept.load_state_dict(Assembled(plain[part], own))  # type: ignore[arg-type]  # a dict, says the protocol; ours is read late
    return True


def points(scratch: Path) -> list[Path]:
    """The restart points in a folder, oldest first."""
    return sorted(path for path in scratch.glob("step-*") if path.is_dir())


class Assembled(Mapping[str, Any]):
    """A part's state as it was written; a tensor is put together of its pieces when it is asked for."""

    def __init__(self, plain: Mapping[str, Any], stored: Mapping[str, list[Piece]]) -> None:
        self.plain, self.stored = plain, stored

    def __getitem__(self, name: str) -> Any:
        if name in self.plain:
            return self.plain[name]
        first, *more = self.stored[name]
        if first.shape is None:
            return first.tensor
        whole = first.tensor.new_empty(first.shape)
        for each in (first, *more):
            whole[tuple(slice(at, at + length) for at, length in zip(each.offset, each.tensor.shape))] = each.tensor
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter((*self.plain, *self.stored))

    def __len__(self) -> int:
        return len(self.plain) + len(self.stored)


class Piece(NamedTuple):
    """A tensor that one rank wrote: the whole when there is no shape, else what lies at an offset in the whole of that shape."""

    tensor: Tensor
    shape: tuple[int, ...] | None = None
    offset: tuple[int, ...] = ()


def _states(parts: Mapping[str, Stateful]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """What this rank writes: tensors, and by part plain values. Of whole tensors that many hold, the first one's."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for part, kept in parts.items():
        for name, value in kept.state_dict().items():
            if isinstance(value, Tensor):
                tensors[f"{part}:{name}"] = value
            else:
                plain[part][name] = value
    before = {name for names in gathered(list(tensors))[: rank()] for name in names}
    own = {n: t for n, t in tensors.items() if (owned(t) if divided(t) else n not in before)}
    return own, plain


def _write(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """This rank's file, and beside it where in the whole tensors its pieces lie."""
    places = {
        name: {"shape": list(tensor.shape), "offset": [each.start for each in piece(tensor)]}
        for name, tensor in tensors.items()
        if divided(tensor)
    }
    local = {name: tensor.to_local() if divided(tensor) else tensor for name, tensor in tensors.items()}
    write(local, folder / f"rank-{rank():05d}.safetensors")
    artifact.write_whole(folder / f"rank-{rank():05d}.json", to_json(places, indent=None))


def _stored(folder: Path) -> dict[str, list[Piece]]:
    """All pieces by name; they map the files, and are read when used."""
    found: dict[str, list[Piece]] = {}
    for file in sorted(folder.glob("rank-*.safetensors")):
        places = read_object(file.with_suffix(".json"))
        for name, tensor in load_file(file).items():
            found.setdefault(name, []).append(Piece(tensor, **places.get(name, {})))
    return found


def _newest(scratch: Path, identity: str, note: Callable[[str], None]) -> Path | None:
    """The newest sound restart point; damaged ones are noted and removed."""
    try:
        artifact.sweep(scratch)
    except OSError as error:
        raise file_error(scratch, error) from error
    for point in reversed(points(scratch)):
        try:
            artifact.verify(point)
            record = read_object(point / "state.json")
        except DamagedArtifact as error:
            note(f"restart point left out: {error}")
            shutil.rmtree(point, ignore_errors=True)
            continue
        except FileError:  # a folder without a manifest is no restart point of ours
            continue
        if record["identity"] == identity:
            return point
        note(f"{point.name}: a restart point of other settings; training starts from the beginning")
    return None
