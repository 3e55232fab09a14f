"""Checkpoints in: a folder in the Hugging Face layout (ours are), a GGUF file, or the name of something fetched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import linear_parameters
from shoestring.artifact import MANIFEST, manifest
from shoestring.errors import FileError
from shoestring.files import read_object
from shoestring.model.checkpoint import adapters
from shoestring.model.checkpoint import tensors as storage
from shoestring.model.checkpoint.build import fill, frame, untwinned
from shoestring.model.checkpoint.families import Reading, reading_family
from shoestring.model.checkpoint.families.renaming import to_ours
from shoestring.model.checkpoint.formats import Leaves, reading_format
from shoestring.model.checkpoint.header import Stored
from shoestring.model.checkpoint.origin import GENERATION, LARGEST, Origin, end_ids, named, optional, read_origin
from shoestring.model.fetch import locate
from shoestring.model.transformer import Transformer
from shoestring.progress import Progress, showing

if TYPE_CHECKING:
    from shoestring.tokenizer import Tokenizer


def load(
    source: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu", progress: Progress | None = None
) -> tuple[Transformer, Tokenizer]:
    """A model and its tokenizer, in evaluation mode.

    Args:
        source: a checkpoint folder (ours or a Hugging Face one of a known family), a `.gguf` file, a folder with a PEFT
            adapter (merged into its base), or a name that was fetched ("smollm2-135m", "owner/name"). Nothing is downloaded.
        dtype: of the weights in memory; packed layers keep their own.
        progress: told what is read, and the share that is done.

    Raises:
        SettingError: a name that was not fetched.
        FileError: an unknown architecture, tensors that are missing or left over, NaN among the weights, an unsupported
            setting: each named.
        DamagedArtifact: a file that is not whole.
    """
    config, tokenizer = read_config(source), load_tokenizer(source)
    if tokenizer.vocabulary > config.vocabulary:
        raise FileError(
            f"{source}: the tokenizer has {tokenizer.vocabulary} entries, the embedding {config.vocabulary} rows; "
            "they don't belong together"
        )
    return load_model(source, dtype, device, progress), tokenizer


def load_model(
    source: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu", progress: Progress | None = None
) -> Transformer:
    """The model alone; see `load`."""
    path = locate(source)
    with showing(progress) as progress:
        if adapters.is_adapter(path):
            return load_adapted(path, None, dtype, device, progress)
        if path.is_file():
            return _load_gguf(source, path, dtype, device, progress).eval()
        if (path / MANIFEST).is_file():
            manifest(path)  # a file of another size than was written is named here
        record, file = _config_file(path)
        family = reading_family(record, file)
        config = family.read_config(Reading(record, file))
        theirs = storage.read(path, family.unused)
        ours = to_ours(family, theirs, config, path)
        tensors, packed = _apart(ours, family.names(config), record, file, path)
        tensors = untwinned(tensors, packed, path) if config.tied else tensors
        model = frame(config, tensors, packed, path)
        storage.all_must_be_finite(theirs, path, progress)
        model.origin = read_origin(source, path, record, _dtype(storage.headers(path), config))
        return fill(model, tensors, path, dtype, device).eval()


def load_adapted(
    folder: Path,
    base: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Transformer:
    """The base model of an adapter, with the adapter merged into it; a line of the log says so.

    Args:
        base: instead of the one that the adapter names.

    Raises:
        SettingError, FileError: as `load` and `adapters.merge_adapter`.
    """
    base = adapters.find_base(folder) if base is None else base
    model = load_model(base, dtype, device, progress)
    changed = adapters.merge_adapter(model, folder)
    assert model.origin is not None
    model.origin = replace(model.origin, changed=True)
    unpacked = ", whose quantized blocks were unpacked" if locate(base).is_file() else ""
    # A warning, because Python shows no less by itself.
    logging.getLogger(__name__).warning("%s: adapter merged into %d matrices of %s%s", folder, changed, base, unpacked)
    return model


def _load_gguf(source: str | Path, path: Path, dtype: torch.dtype, device: str, progress: Progress) -> Transformer:
    from shoestring.model.checkpoint import gguf_file

    model = frame(gguf_file.read_config(path), gguf_file.shapes(path), {}, path)
    model.origin = Origin(named(source), *gguf_file.read_records(path), dtype=torch.float16)
    return fill(model, gguf_file.read_tensors(path, progress), path, dtype, device)


def load_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder, a GGUF file or a fetched name.

    Its `ends` are completed with what the model's files name: eos_token_id of `config.json` and `generation_config.json`, a
    number or a list, GGUF's ends of text, turn and message. Ids beyond the vocabulary are left out.

    Raises:
        FileError: there is none, or it can't be read; an eos_token_id that is neither.
    """
    path = locate(source)
    if adapters.is_adapter(path):
        if not any((path / name).exists() for name in ("tokenizer.json", "tokenizer.json.xz")):
            return load_tokenizer(adapters.find_base(path))
        from shoestring.tokenizer import Tokenizer

        tokenizer = Tokenizer.open(path)
        tokenizer.ends |= {end for end in load_tokenizer(adapters.find_base(path)).ends if end < tokenizer.vocabulary}
        return tokenizer
    if path.is_file():
        from shoestring.model.checkpoint import gguf_file

        tokenizer, records = gguf_file.read_tokenizer(path), dict.fromkeys([path], gguf_file.read_records(path)[1])
    else:
        from shoestring.tokenizer import Tokenizer

        tokenizer = Tokenizer.open(path)
        records = {file: optional(file) for file in (path / "config.json", path / GENERATION)}
    for file, record in records.items():
        tokenizer.ends |= {number for number in end_ids(record, file) if number < tokenizer.vocabulary}
    return tokenizer


def read_config(source: str | Path) -> ModelConfig:
    """The configuration of a checkpoint, without reading weights.

    Raises:
        SettingError, FileError: as `load` does.
    """
    path = adapters.whole(source)
    if path.is_file():
        from shoestring.model.checkpoint import gguf_file

        return gguf_file.read_config(path)
    record, file = _config_file(path)
    return reading_family(record, file).read_config(Reading(record, file))


def stored(source: str | Path) -> tuple[torch.dtype, float]:
    """How a checkpoint is stored: the floating dtype that keeps it best, and the bits per weight of its block matrices.

    A GGUF file's blocks are float16 scales times small integers: float16 holds them to 11 bits, bfloat16 to 8
    (docs/model.md has the perplexities).

    Raises:
        SettingError, FileError: as `load` does.
    """
    path = adapters.whole(source)
    if path.is_file():
        return torch.float16, 16.0
    record, file = _config_file(path)
    tensors, config = storage.headers(path), read_config(path)
    dtype = _dtype(tensors, config)
    if reading_format(record, file) is None:
        return dtype, 8.0 * dtype.itemsize
    names = reading_family(record, file).names(config)
    modules = {names.get(slot.name, slot.name) for slot in config.matrices()}
    held = [t.nbytes for n, t in tensors.items() if n.rpartition(".")[0] in modules and not n.endswith((".bias", "weight_shape"))]
    return dtype, 8 * sum(held) / linear_parameters(config)


def packed_bits(source: str | Path) -> frozenset[int]:
    """Bits of the packed layers of a checkpoint, from its configuration alone; none when it isn't packed.

    Raises:
        SettingError, FileError: as `load` does.
    """
    path = adapters.whole(source)
    found = None if path.is_file() else reading_format(*_config_file(path))
    return frozenset() if found is None else found[0].bits(found[1])


def _dtype(tensors: dict[str, Stored], config: ModelConfig) -> torch.dtype:
    """The embedding's; gpt2 folders may lack its prefix, so it is found by its shape."""
    rows = (config.vocabulary, config.width)
    return next((t.dtype for t in tensors.values() if t.shape == rows and t.dtype.is_floating_point), torch.float32)


def _config_file(folder: Path) -> tuple[dict[str, Any], Path]:
    file = folder / "config.json"
    if not file.exists():
        raise FileError(f"{folder}: no config.json; name a checkpoint folder, a .gguf file or a fetched model")
    return read_object(file, "fetch the checkpoint again", LARGEST), file


def _apart(tensors: dict[str, Tensor], theirs: dict[str, str], record: Mapping[str, Any], file: Path, source: Path) -> Any:
    """Tensors of plain layers by our names, and the other matrices by our module names."""
    if (found := reading_format(record, file)) is None:
        return tensors, {}
    modules: Leaves = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        modules.setdefault(theirs.get(module, module), {})[leaf] = tensor
    form, config = found
    kept, ours = form.read(config, modules, source), {name: module for module, name in theirs.items()}
    plain = {f"{ours.get(name, name)}.{leaf}": tensor for name, own in modules.items() for leaf, tensor in own.items()}
    return plain, {ours.get(name, name): matrix for name, matrix in kept.items()}
