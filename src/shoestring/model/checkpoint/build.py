"""From tensors under our own names to a Transformer: every tensor accounted for, none left uninitialised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from shoestring.errors import FileError
from shoestring.model.config import ModelConfig
from shoestring.model.linear import PackedLinear
from shoestring.model.position import rope
from shoestring.model.transformer import Transformer


def build(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    packed: Mapping[str, PackedLinear],
    source: Path,
    dtype: torch.dtype,
    device: str,
) -> Transformer:
    """A model with the given weights.

    Args:
        tensors: by our names; a tied head may be there, and is left out.
        packed: layers that stand in for a linear one, by our module names. Their scales keep their dtype.
        source: what an error names.

    Raises:
        FileError: tensors missing, left over, or of another shape, by name.
    """
    with torch.device("meta"):
        model = Transformer(config)
    for name, layer in packed.items():
        parent, _, leaf = name.rpartition(".")
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear) or (linear.out_features, linear.in_features) != (
            layer.out_features,
            layer.in_features,
        ):
            raise FileError(f"{source}: {name} is packed as {layer.out_features} x {layer.in_features}, the model has {linear}")
        setattr(model.get_submodule(parent), leaf, layer)
    expected = {name: parameter for name, parameter in model.named_parameters() if parameter.device.type == "meta"}
    _compare(expected, {n: t for n, t in tensors.items() if not (config.tied and n == "head.weight")}, source)
    for name, parameter in expected.items():
        owner, _, leaf = name.rpartition(".")
        weight = tensors[name].to(device=device, dtype=dtype, copy=True)
        setattr(model.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=parameter.requires_grad))
    if config.tied:
        model.head.weight = model.embedding.weight
    if config.position == "rope":
        model.turns = rope.table(config, config.context)
    return model.to(device)


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path) -> None:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    said = [f"{what} {_some(names)}" for what, names in (("lacks", missing), ("has, beyond the model,", extra)) if names]
    if said:
        raise FileError(f"{source}: {' and '.join(said)} (in our names); the weights don't belong to this configuration")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise FileError(f"{source}: {name} is {_by(found[name])} where the configuration says {_by(tensor)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _by(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
