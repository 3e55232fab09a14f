"""Tensors on disk: safetensors files, one or in shards, read whole or refused; written the same for the same model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from shoestring.errors import DamagedArtifact, FileError, file_error

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order.

    Raises:
        FileError: none is there (pickled weights are refused), or the index names one that is missing.
    """
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"{folder / INDEX}: not an index of shards; fetch the checkpoint again") from error
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise FileError(f"{folder / str(name)}: a shard that {INDEX} names is missing; fetch the checkpoint again")
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt")) + sorted(folder.glob("*.pth"))
    if pickled:
        raise FileError(
            f"{pickled[0]}: pickled weights can run code and are never loaded; save it as {WEIGHTS} where you trust it"
        )
    raise FileError(f"{folder}: no {WEIGHTS}; name a checkpoint folder, a .gguf file or a fetched model")


def read(folder: Path) -> dict[str, Tensor]:
    """All tensors by name; they map the files, and are read when used.

    Raises:
        FileError: missing, or pickled.
        DamagedArtifact: a file that is cut short or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found: dict[str, Tensor] = {}
    for file in files(folder):
        try:
            found |= load_file(file)
        except SafetensorError as error:
            raise DamagedArtifact(file, f"not whole safetensors: {error}") from error
        except OSError as error:
            raise file_error(file, error) from error
    return found


def write(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write one file; the bytes depend on names and values alone.

    Raises:
        FileError: when the disk is full or the place can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: tensors[name].detach().to("cpu").contiguous() for name in sorted(tensors)}
    try:
        file.touch()
        mode = file.stat().st_mode
        save_file(ready, file, metadata={"format": "pt"})
        file.chmod(mode)  # safetensors may leave it readable by its owner alone
    except OSError as error:
        raise file_error(file, error) from error
    except SafetensorError as error:  # carries the operating system's words for a full disk
        raise FileError(f"{file}: can't be written ({error}); free some space or choose another folder with --out") from error
