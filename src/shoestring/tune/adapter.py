"""Adapters beside the matrices of a model: put there, chosen by name, merged (`model.forms.adapted` says what one is)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch

from shoestring.errors import SettingError, nearest
from shoestring.model import Transformer
from shoestring.model.forms import put
from shoestring.model.forms.adapted import LoRALinear, Shape
from shoestring.tune.cost import matrices, must_be_low


def add_lora(
    model: Transformer,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = ("all",),
    dropout: float = 0.0,
    rank_stabilised: bool = False,
    keep_zeros: bool = False,
    seed: int = 0,
) -> dict[str, LoRALinear]:
    """Freeze a model and put an adapter beside each target matrix of each block.

    Args:
        targets: names of matrices ("mixer.query" for those of all blocks), their last parts ("query"), or "all".
        seed: the draw of A depends on it and on the order of the matrices alone.

    Returns:
        The adapted layers by dotted name; only their `first` and `second` are trainable.

    Raises:
        SettingError: a target that is no matrix of the model, a rank beyond all of them, or a model that has adapters.
    """
    if adapters(model):
        raise SettingError("lora: the model has adapters already; merge them first")
    shapes = matrices(model.config)
    names = chosen(targets, shapes)
    must_be_low(rank, [min(shapes[name]) for name in names])
    return place(model, dict.fromkeys(names, Shape(rank, alpha, dropout, rank_stabilised)), names if keep_zeros else (), seed)


def place(
    model: Transformer, shapes: Mapping[str, Shape], keep_zeros: Container[str] = (), seed: int = 0
) -> dict[str, LoRALinear]:
    """Freeze a model and put an adapter of the given shape beside each matrix that is named.

    Args:
        keep_zeros: names of matrices whose change is masked.

    Raises:
        SettingError: a model that has adapters.
    """
    if adapters(model):
        raise SettingError("lora: the model has adapters already; merge them first")
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    found: dict[str, LoRALinear] = {}
    for name, shape in shapes.items():
        layer = LoRALinear(model.get_submodule(name), shape, generator, name in keep_zeros)
        put(model, name, layer.train(model.training))
        found[name] = layer
    return found


def chosen(targets: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names of matrices ("blocks.3.mixer.query") that the targets mean, in their own order.

    Raises:
        SettingError: a target that means none.
    """
    names = list(names)
    for target in targets:
        if target != "all" and not any(_means(target, name) for name in names):
            inside = dict.fromkeys(name.split(".", 2)[2] for name in names)
            allowed = ["all", *inside, *(name.rpartition(".")[2] for name in inside)]
            raise SettingError(f"lora.targets: {target!r} is no matrix of the model; {nearest(target, allowed)}")
    return [name for name in names if any(target == "all" or _means(target, name) for target in targets)]


def adapters(model: Transformer) -> dict[str, LoRALinear]:
    """The adapted layers of a model by dotted name."""
    modules: Iterable[tuple[str, Any]] = model.named_modules()
    return {name: module for name, module in modules if getattr(module, "form", "") == "adapted"}


def merge(model: Transformer) -> int:
    """Add each adapter to its matrix, in place, and take it away; how many there were. All weights can be trained again."""
    found = adapters(model)
    for name, layer in found.items():
        put(model, name, layer.merged())
    model.requires_grad_(True)
    return len(found)


def trainable_parameters(model: Transformer) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _means(target: str, name: str) -> bool:
    return f".{name}".endswith(f".{target}")
