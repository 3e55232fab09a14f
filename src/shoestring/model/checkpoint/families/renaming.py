"""Tensors from a family's names to ours and back, as its table says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.errors import FileError
from shoestring.model.checkpoint.families.family import Entry, Family

Tensors = dict[str, Tensor]
BARE = ("embedding", "positions", "head")
"""Modules that have no bias in any family."""


def to_ours(family: Family, tensors: Mapping[str, Tensor], config: ModelConfig, file: Path) -> Tensors:
    """Tensors under our names; one of no module of ours keeps its name, to be reported as left over.

    Raises:
        FileError: names a bias that should be zero and is not; a tensor that stands there with and without the prefix; matrices
            in one that have not the outputs of ours together.
    """
    known = {each.theirs: each for each in family.entries(config)}
    outputs = {slot.name: slot.shape[0] for slot in config.slots()} if any(len(e.ours) > 1 for e in known.values()) else {}
    found: Tensors = {}
    for given, tensor in tensors.items():
        name = _prefixed(given, family, tensors, file)
        module, _, leaf = name.rpartition(".")
        each = known.get(module, Entry((module,), module))
        if family.zero_biases and leaf == "bias":
            if tensor.count_nonzero():
                raise FileError(f"{file}: {name} is not zero; shoestring's shape has no such bias and can't hold this checkpoint")
            continue
        whole = tensor.T if each.transposed else tensor
        sizes = [outputs[ours] for ours in each.ours] if len(each.ours) > 1 else [whole.shape[0] if whole.ndim else 1]
        if len(sizes) > 1 and whole.shape[0] != sum(sizes):
            raise FileError(f"{file}: {name} has {whole.shape[0]} outputs where the configuration says {sum(sizes)}")
        for ours, part in zip(each.ours, whole.split(sizes) if len(sizes) > 1 else [whole], strict=True):
            found[f"{ours}.{leaf}"] = part.contiguous() if each.transposed else part
    return found


def to_theirs(family: Family, tensors: Mapping[str, Tensor], config: ModelConfig) -> Tensors:
    """The other way round, with zero biases where the family has them."""
    holder = {ours: each for each in family.entries(config) for ours in each.ours}
    found: Tensors = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        each = holder.get(module, Entry((module,), module))
        if module != each.ours[0]:  # it is written with the first
            continue
        whole = tensor if len(each.ours) == 1 else torch.cat([tensors[f"{ours}.{leaf}"] for ours in each.ours])
        found[f"{each.theirs}.{leaf}"] = whole.T.contiguous() if each.transposed else whole
        if family.zero_biases and module not in BARE:
            found[f"{each.theirs}.bias"] = torch.zeros(whole.shape[0], dtype=whole.dtype)
    return found


def _prefixed(name: str, family: Family, tensors: Mapping[str, Tensor], file: Path) -> str:
    """A name with the prefix that files of the bare model lack."""
    if name.startswith((family.prefix, "lm_head.")):
        return name
    if family.prefix + name in tensors:
        raise FileError(f"{file}: {family.prefix}{name} stands there with and without its prefix; fetch the checkpoint again")
    return family.prefix + name
