"""Where a model came from, and what its files said: kept with the model, so that saving changes only what changed.

`load` fills the record, `write` reads it. A model that was made here, by `Transformer(config)`, has none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shoestring.architecture import ModelConfig
from shoestring.artifact import MANIFEST, write_whole
from shoestring.errors import FileError, shown
from shoestring.files import read_object, read_text, to_json
from shoestring.model.checkpoint.families.family import Family, Reading

GENERATION, ORIGIN = "generation_config.json", "origin.json"
LARGEST = 16 << 20
"""Bytes of a configuration: real ones have a few thousand."""

TEXTS = ("special_tokens_map.json",)
"""Files beside the weights that are copied as they are."""

DROPPED = {
    "auto_map": "names Python files that are not copied, and that shoestring's layout does not need",
    "quantization_config": "is written anew from the layers as they are now",
    "compression_config": "the older name of quantization_config",
    "torch_dtype": "is written anew: the weights' dtype on disk",
    "dtype": "as torch_dtype",
}
"""Entries of a config.json that are not carried over, and why."""

ROPE = ("rope_theta", "rope_scaling", "rope_parameters")
"""One setting in three places: transformers 4 reads the first two, transformers 5 the last; they change together."""

IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True, slots=True)
class Origin:
    """The record of a model that was loaded.

    Attributes:
        source: what to name as the base of an adapter: the hub's or the catalogue's name, or the folder or file, absolute. A
            step of a recipe passes on the source of what it read, so it outlives the run. "" for a model that was trained here.
        config: `config.json` as it was read; of a GGUF file the ids of its special tokens.
        generation: `generation_config.json` as it was read, {} when there was none.
        dtype: the floating dtype that keeps the source's weights best.
        changed: the weights are no longer the source's: a step has trained, pruned or quantized them.
        texts: other files to copy, by name.
    """

    source: str
    config: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    changed: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)


def named(source: str | Path) -> str:
    """What `Origin.source` says: a path (a folder, a file, a run's folder) made absolute, a name as it is."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else str(source)


def read_origin(source: str | Path, folder: Path, config: Mapping[str, Any], dtype: torch.dtype) -> Origin:
    """The record of a checkpoint folder; one that a step wrote keeps the source it names.

    Raises:
        FileError: `generation_config.json` or `origin.json` is not a JSON object.
    """
    generation = optional(folder / GENERATION)
    earlier = optional(folder / ORIGIN)
    texts = {name: read_text(folder / name, LARGEST) for name in TEXTS if os.path.lexists(folder / name)}
    if not earlier:
        made_here = (folder / MANIFEST).is_file()
        return Origin("" if made_here else named(source), config, generation, dtype, made_here, texts)
    name, kind = earlier.get("source"), getattr(torch, str(earlier.get("dtype")), None)
    first = kind if isinstance(kind, torch.dtype) and kind.is_floating_point else dtype
    return Origin(name if isinstance(name, str) else "", config, generation, first, bool(earlier.get("changed", True)), texts)


def end_ids(record: Mapping[str, Any], file: Path) -> list[int]:
    """The ids in a record's `eos_token_id`, a number or a list of numbers.

    Raises:
        FileError: it is neither.
    """
    value = record.get("eos_token_id")
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(number) is int for number in found):
        raise FileError(f"{file}: eos_token_id is {shown(value)}; it must be a number or a list of numbers")
    return [number for number in found if number >= 0]


def write_origin(origin: Origin, folder: Path, changed: bool = True, **more: Any) -> None:
    """Write what the next step must know of the source; `more` goes into the record as it is."""
    kind = str(origin.dtype).removeprefix("torch.")
    write_whole(folder / ORIGIN, to_json({"source": origin.source, "dtype": kind, "changed": changed, **more}) + "\n")


def merged(origin: Origin, family: Family, config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model: as it was read, but for the entries whose settings have changed since.

    Only the family that read it can tell; another one's entries stand alone, with the ids of special tokens.
    """
    ours = family.write_config(config) or {}
    ids = {key: origin.config[key] for key in IDS if key in origin.config}
    architectures = origin.config.get("architectures")
    if not isinstance(architectures, list) or architectures[:1] == [] or architectures[0] not in family.architectures:
        return {**ours, **ids}
    try:
        before = family.write_config(family.read_config(Reading(dict(origin.config), Path("config.json")))) or {}
    except FileError:  # a record that was put together by hand
        return {**ours, **ids}
    changed = {key for key in ours.keys() | before.keys() if ours.get(key) != before.get(key)}
    if changed & set(ROPE):
        changed |= set(ROPE)
    kept = {key: value for key, value in origin.config.items() if key not in DROPPED and key not in changed}
    return {**kept, **{key: value for key, value in ours.items() if key in changed}}


def optional(file: Path) -> dict[str, Any]:
    """The JSON object in a file that may be missing; a link to nothing or a folder in its place is no missing file.

    Raises:
        FileError: it can't be read, or holds something else.
    """
    return read_object(file, "mend or remove it", LARGEST) if os.path.lexists(file) else {}
