"""Checkpoints out: the Hugging Face layout of the family that fits, packed layers in compressed-tensors' form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shoestring.artifact import write_whole, writing
from shoestring.errors import FileError
from shoestring.files import to_json
from shoestring.model.checkpoint import tensors as storage
from shoestring.model.checkpoint.families import Family, writing_family
from shoestring.model.checkpoint.families.renaming import to_theirs
from shoestring.model.checkpoint.formats import Format, writing_format
from shoestring.model.checkpoint.origin import GENERATION, merged, write_origin
from shoestring.model.checkpoint.tensors import finite
from shoestring.model.forms import Matrix
from shoestring.model.transformer import Transformer

if TYPE_CHECKING:
    from shoestring.tokenizer import Tokenizer


def save(
    model: Transformer,
    tokenizer: Tokenizer | None,
    folder: str | Path,
    dtype: torch.dtype | None = None,
    about: dict[str, Any] | None = None,
    format: str | None = None,
) -> None:
    """Write a checkpoint artifact, whole or not at all; one that stands there already is replaced.

    Args:
        dtype: of the weights on disk, packed layers apart; what suits the model when None, see `write`.
        about: goes into the manifest, with `facts` added.
        format: of matrices that are not plain, a name in FORMATS; the first that holds them when None.

    Raises:
        SettingError: a format that can't hold them.
        FileError: when the disk is full or the place can't be written.
    """
    about = {} if about is None else about
    with writing(Path(folder), "checkpoint", about) as draft:
        about["facts"] = {**about.get("facts", {}), **write(model, tokenizer, draft, dtype, format)}


def write(
    model: Transformer,
    tokenizer: Tokenizer | None,
    folder: Path,
    dtype: torch.dtype | None = None,
    format: str | None = None,
) -> dict[str, Any]:
    """Fill a folder with a checkpoint: config.json, model.safetensors, the tokenizer, generation_config.json, origin.json.

    What the model's files said when it was loaded (`model.origin`) is written again, but for what has changed.

    Args:
        dtype: of the weights on disk. When None, weights that are float32 in memory are stored as their origin was, if that
            was float16 or bfloat16 (a GGUF file counts as float16, which holds its blocks to 11 bits, bfloat16 to 8); else as
            bfloat16 beside packed layers; else as float32. Weights that float16 can't hold are stored as bfloat16 then.
            Packed layers keep their own. One that is given counts as the origin's for later steps.

    Returns:
        Facts: disk_bytes (of all files now in the folder), sparsity and bits_per_weight of the blocks' matrices.

    Raises:
        FileError: NaN or infinity among the weights (nothing is written then), or weights beyond what `dtype` holds; the disk
            is full, or the place can't be written.
    """
    folder = Path(folder)
    matrices: dict[str, Matrix] = {**dict(model.matrices()), "head": model.head}
    packed = {name: matrix for name, matrix in matrices.items() if matrix.form != "dense"}
    form = writing_format(packed.values(), format)
    family = writing_family(model.config, bool(packed))
    theirs = family.names(model.config)
    origin = model.origin if dtype is None or model.origin is None else replace(model.origin, dtype=dtype)
    stored, dtype = _stored(model, dtype, packed, form, folder)
    storage.write(to_theirs(family, stored, model.config), folder / storage.WEIGHTS)

    kind = str(dtype).removeprefix("torch.")
    config, generation = _records(model, tokenizer, family)
    # transformers 4 reads torch_dtype, 5 reads dtype.
    config |= {"torch_dtype": kind, "dtype": kind}
    if packed:
        named = {theirs.get(name, name): layer for name, layer in packed.items()}
        plain = [theirs.get(name, name) for name in matrices if name not in packed]
        config["quantization_config"] = form.config(named, plain)
    _write_json(folder / "config.json", config)
    if generation:
        _write_json(folder / GENERATION, generation)
    if tokenizer is not None:
        tokenizer.save(folder)
    if origin is not None:
        write_origin(origin, folder)
        for name, text in origin.texts.items() if tokenizer is not None else ():
            write_whole(folder / name, text)
    return {"disk_bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()), **facts(model, dtype)}


def _records(model: Transformer, tokenizer: Tokenizer | None, family: Family) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json and generation_config.json say, dtypes and packing apart: as they were read, with what has changed.

    The ends of an answer are those that the source's configurations name, else (a GGUF file has none) all of the tokenizer's.
    """
    if model.origin is None:
        ids = {"bos_token_id": None, "eos_token_id": None if tokenizer is None else tokenizer.end}
        return {**(family.write_config(model.config) or {}), "use_cache": True, **ids}, {**ids, "eos_token_id": _ends(tokenizer)}
    config, generation = merged(model.origin, family, model.config), dict(model.origin.generation)
    silent = config.get("eos_token_id") is None and generation.get("eos_token_id") is None
    if tokenizer is not None and (silent or "architectures" not in model.origin.config):
        generation["eos_token_id"] = _ends(tokenizer)
    return config, generation


def _ends(tokenizer: Tokenizer | None) -> int | list[int] | None:
    """The ends of an answer as generation_config.json lists them, that of a document first."""
    if tokenizer is None:
        return None
    found = [tokenizer.end, *sorted(tokenizer.ends - {tokenizer.end})]
    return found if len(found) > 1 else found[0]


def facts(model: Transformer, dtype: torch.dtype | None = None) -> dict[str, float]:
    """What is counted of a model's block matrices.

    Args:
        dtype: the dtype they are stored in, as they are in memory when None.

    Returns:
        sparsity, the share of weights that are zero; bits_per_weight as stored, scales and zeros counted in.
    """
    weights = zeros = bits = 0.0
    for _, matrix in model.matrices():
        weight = matrix.weight_rows().detach()
        plain = dtype is not None and matrix.form == "dense"
        weights += weight.numel()
        zeros += weight.numel() - int(weight.count_nonzero())
        bits += weight.numel() * (8.0 * dtype.itemsize if plain and dtype is not None else matrix.bits_per_weight)
    return {"sparsity": zeros / weights, "bits_per_weight": bits / weights}


def _stored(
    model: Transformer, dtype: torch.dtype | None, packed: Mapping[str, Matrix], form: Format, folder: Path
) -> tuple[dict[str, Tensor], torch.dtype]:
    """The tensors to write, by our names: a tied head once, packed layers as they are, the rest in a dtype; and that dtype."""
    layers = tuple(f"{name}." for name in packed)
    found = {
        name: tensor.detach() for name, tensor in model.state_dict().items() if name != "head.weight" or not model.config.tied
    }
    for name, tensor in found.items():
        if not finite(tensor):
            raise FileError(f"{folder}: {name} holds NaN or infinity, so nothing was written; take an earlier checkpoint")
    wanted = dtype or _suitable(model, bool(packed))
    made = {name: tensor.to(wanted) for name, tensor in found.items() if not name.startswith(layers)}
    made |= {f"{name}.{leaf}": tensor for name, matrix in packed.items() for leaf, tensor in form.leaves(matrix).items()}
    beyond = [name for name, tensor in made.items() if tensor.dtype == torch.float16 and not finite(tensor)]
    if not beyond:
        return made, wanted
    if dtype is not None:
        raise FileError(f"{folder}: {beyond[0]} has values beyond what float16 holds; save in bfloat16 or float32")
    return _stored(model, torch.bfloat16, packed, form, folder)


def _suitable(model: Transformer, packed: bool) -> torch.dtype:
    """The rule of `write`."""
    here = model.embedding.weight.dtype
    origin = None if model.origin is None else model.origin.dtype
    if here != torch.float32:
        return here
    if origin in (torch.float16, torch.bfloat16):
        return origin
    return torch.bfloat16 if packed else here


def _write_json(file: Path, record: dict[str, Any]) -> None:
    write_whole(file, to_json(dict(sorted(record.items())), indent=2) + "\n")
