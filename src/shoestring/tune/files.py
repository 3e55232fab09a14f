"""Adapters on disk: those of a model in memory written as PEFT opens them, PEFT's put beside a model's matrices, and merging.

The form of the files, and what of PEFT's settings is read, stands in `model.checkpoint.adapters`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from shoestring.errors import FileError, SettingError
from shoestring.model import Transformer, load_adapted, load_tokenizer, save
from shoestring.model.checkpoint import stored
from shoestring.model.checkpoint.adapters import CONFIG, Change, find_base, is_adapter, read_adapter, write_adapter
from shoestring.model.fetch import locate
from shoestring.progress import Progress, showing
from shoestring.tune.adapter import LoRALinear, Shape, adapters, place


def save_adapter(model: Transformer, folder: Path, base: str = "") -> None:
    """Write the adapters of a model.

    Args:
        base: name or path of the model that they belong to; where the model was loaded from when not given, unless its
            weights have changed since, so that no name stands for them.

    Raises:
        FileError: when the disk is full or the place can't be written.
        ValueError: the model has no adapters.
    """
    found = adapters(model)
    if not found:
        raise ValueError("the model has no adapters")
    if not base and model.origin is not None and not model.origin.changed:
        base = model.origin.source
    changes = {
        name: Change(layer.first, layer.second, layer.shape.alpha, layer.shape.rank_stabilised, layer.kept is not None)
        for name, layer in found.items()
    }
    write_adapter(changes, model.config, folder, base, next(iter(found.values())).shape.dropout)


def load_adapter(model: Transformer, folder: Path | str) -> dict[str, LoRALinear]:
    """Put the adapters of a PEFT folder beside the matrices of a model, which may be packed; the model is frozen.

    Raises:
        FileError: files that are missing or damaged, settings that are not read, tensors that do not fit the model.
        SettingError: a model that has adapters.
    """
    changes, settings = read_adapter(Path(folder), model)
    shapes = {
        name: Shape(change.rank, change.alpha, settings.dropout, change.rank_stabilised) for name, change in changes.items()
    }
    found = place(model, shapes, keep_zeros={name for name, change in changes.items() if change.masked})
    with torch.no_grad():
        for name, layer in found.items():
            layer.first.copy_(changes[name].first_RK)
            layer.second.copy_(changes[name].second_NR)
    return found


def merge_adapter(adapter: str | Path, out: Path | str, base: str | Path | None = None, progress: Progress | None = None) -> Path:
    """Write the checkpoint that an adapter makes of its base, in the base's dtype.

    Args:
        adapter: a folder, or a name that was fetched.
        base: the base model, instead of the one that the adapter names.

    Raises:
        SettingError: `out` exists.
        FileError: no adapter, one that does not fit its base, a base that is missing or quantized; a full disk.
    """
    folder, out = locate(adapter), Path(out)
    if not is_adapter(folder):
        raise FileError(f"{folder}: holds no {CONFIG}; name the folder of an adapter")
    if out.exists():
        raise SettingError(f"{out}: exists already; choose another name or remove it")
    with showing(progress) as progress:
        model = load_adapted(folder, base, progress=progress)
        kind, _ = stored(folder if base is None else base)
        own = any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.json.xz"))
        tokenizer = load_tokenizer(base if base is not None and not own else folder)
        progress("writing the checkpoint")
        about = {"adapter": str(adapter), "base": str(find_base(folder) if base is None else base)}
        save(model, tokenizer, out, kind, about)
    return out
