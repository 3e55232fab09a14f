"""Tensors on disk: safetensors files, one or in shards, read whole or refused; written the same for the same model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from shoestring.drafts import sync
from shoestring.errors import DamagedArtifact, FileError, file_error, shown
from shoestring.files import read_object, regular
from shoestring.model.checkpoint.header import Stored, read_header
from shoestring.progress import Progress, silent

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order.

    Raises:
        FileError: none is there (pickled weights are refused), or the index names one that is missing or lies elsewhere.
    """
    index = folder / INDEX
    if index.is_file():
        shards = read_object(index, "fetch the checkpoint again").get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
            raise FileError(f"{index}: weight_map must name a shard for each tensor; fetch the checkpoint again")
        names = sorted(set(shards.values()))
        for name in names:
            if Path(name).name != name or name in ("", ".."):
                raise FileError(f"{index}: names the shard {shown(name)}; only files in the same folder are read")
            if not (folder / name).exists():
                raise FileError(f"{folder / name}: a shard that {INDEX} names is missing; fetch the checkpoint again")
        return [regular(folder / name) for name in names]
    if (folder / WEIGHTS).exists():
        return [regular(folder / WEIGHTS)]
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt")) + sorted(folder.glob("*.pth"))
    if pickled:
        raise FileError(
            f"{pickled[0]}: pickled weights can run code and are never loaded; save it as {WEIGHTS} where you trust it"
        )
    raise FileError(f"{folder}: no {WEIGHTS}; name a checkpoint folder, a .gguf file or a fetched model")


def headers(folder: Path) -> dict[str, Stored]:
    """What is stored of each tensor, by name, from the files' headers.

    Raises:
        FileError: as `files`; a tensor that stands in two shards.
        DamagedArtifact: a file that is cut short or not safetensors.
    """
    found: dict[str, Stored] = {}
    for file in files(folder):
        for name, stored in read_header(file).items():
            if name in found:
                raise FileError(f"{file}: {shown(name)} stands in {found[name].file.name} too; fetch the checkpoint again")
            found[name] = stored
    return found


def read(folder: Path, unused: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """All tensors by name; they map the files, and are read when used.

    Args:
        unused: endings of names that are left out.

    Raises:
        FileError: missing, or pickled.
        DamagedArtifact: a file that is cut short or not safetensors.
    """
    stored, found = headers(folder), dict[str, Tensor]()
    for file in dict.fromkeys(each.file for each in stored.values()):
        found |= read_file(file)
    return {name: tensor for name, tensor in found.items() if not name.endswith(unused)}


def read_file(file: Path) -> dict[str, Tensor]:
    """All tensors of one file by name; they map it, and are read when used.

    Raises:
        DamagedArtifact: cut short or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except SafetensorError as error:
        raise DamagedArtifact(file, f"not whole safetensors: {error}") from error
    except OSError as error:
        raise file_error(file, error) from error


def all_must_be_finite(tensors: Mapping[str, Tensor], folder: Path, progress: Progress = silent) -> None:
    """Look at each tensor of a checkpoint once, which reads it.

    Raises:
        FileError: names the first file and tensor with NaN or infinity.
    """
    stored = headers(folder)
    whole, done = max(1, sum(tensor.nbytes for tensor in tensors.values())), 0
    for name, tensor in tensors.items():
        progress(f"reading {stored[name].file.name}", done / whole)
        must_be_finite(tensor, name, stored[name].file)
        done += tensor.nbytes


def must_be_finite(tensor: Tensor, name: str, file: Path | str) -> None:
    """Refuse weights with which nothing sensible can be computed; one pass over them.

    Raises:
        FileError: names the file and the tensor.
    """
    if not finite(tensor):
        raise FileError(
            f"{file}: {shown(name)} holds NaN or infinity; the weights are broken: take an earlier checkpoint or fetch it again"
        )


def finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite: both show in the extremes."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    extremes = torch.aminmax(tensor if tensor.dtype.itemsize > 1 else tensor.float())
    return bool(extremes.min.isfinite() and extremes.max.isfinite())


def write(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write one file, synced; the bytes depend on names and values alone. Whatever writes tensors does it here.

    Raises:
        FileError: the place can't be written. DiskFull: no room is left.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: tensors[name].detach().to("cpu").contiguous() for name in sorted(tensors)}
    try:
        file.touch()
        mode = file.stat().st_mode
        save_file(ready, file, metadata={"format": "pt"})
        file.chmod(mode)  # safetensors may leave it readable by its owner alone
        sync(file)
    except OSError as error:
        raise file_error(file, error) from error
    except SafetensorError as error:  # the operating system's error as a text, such as "No space left on device (os error 28)"
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise FileError(f"{file}: can't be written ({shown(str(error), quote=False)})") from error
        raise file_error(file, OSError(int(number[1]), str(error))) from error
