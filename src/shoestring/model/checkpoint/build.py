"""From tensors under our own names to a Transformer: every tensor accounted for, none left uninitialised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shoestring.architecture import ModelConfig
from shoestring.errors import FileError
from shoestring.model.checkpoint.tensors import finite
from shoestring.model.forms import Matrix, put
from shoestring.model.transformer import Transformer


def frame(config: ModelConfig, tensors: Mapping[str, Tensor], packed: Mapping[str, Matrix], source: Path) -> Transformer:
    """A model without weights, on the meta device, once names and shapes of the given tensors are seen to fit it.

    Args:
        tensors: by our names, on any device: no value is looked at.
        packed: layers that stand in for a linear one, by our module names.
        source: what an error names.

    Raises:
        FileError: tensors missing, left over or of another shape, by name.
    """
    held = len(tensors) + len(packed)
    if len(config.layers) > held:
        raise FileError(f"{source}: its configuration says {len(config.layers):,} layers, its files hold {held:,} tensors")
    with torch.device("meta"), _Unfilled():
        model = Transformer(config)
    modules = dict(model.named_modules())
    for name, layer in packed.items():
        linear: Any = modules.get(name)
        shape = (layer.out_features, layer.in_features)
        if (getattr(linear, "out_features", 0), getattr(linear, "in_features", 0)) != shape:
            raise FileError(
                f"{source}: {name} is {layer.form}, {layer.out_features} x {layer.in_features}; the model has {linear}"
            )
        put(model, name, layer)
    _compare(_empty(model), tensors, source)
    return model


def fill(model: Transformer, tensors: dict[str, Tensor], source: Path, dtype: torch.dtype, device: str) -> Transformer:
    """Give a model of `frame` its weights; takes them out of `tensors` one by one, so that no two copies of all stand at once.

    Raises:
        FileError: weights beyond what `dtype` holds.
    """
    for name, parameter in _empty(model).items():
        owner, _, leaf = name.rpartition(".")
        found = tensors.pop(name)
        weight = found.to(device=device, dtype=dtype, copy=True)
        if dtype == torch.float16 and found.dtype != dtype and not finite(weight):
            raise FileError(f"{source}: {name} has values beyond what float16 holds; load it in bfloat16 or float32")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=parameter.requires_grad))
    if model.config.tied:
        model.head.weight = model.embedding.weight
    return model.to(device)


class _Unfilled(TorchFunctionMode):
    """Modules are made without drawing weights: on the meta device that imports PyTorch's compiler, seconds of every loading."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _empty(model: Transformer) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.device.type == "meta"}


def untwinned(tensors: dict[str, Tensor], packed: Mapping[str, Matrix], source: Path) -> dict[str, Tensor]:
    """The tensors of a tied model with the one that embedding and head share under the embedding's name alone.

    Files hold it under either name, or under both.

    Raises:
        FileError: two that differ.
    """
    if "head" in packed:
        raise FileError(f"{source}: its configuration ties the head to the embedding, and its files hold a packed head beside it")
    head, embedding = tensors.get("head.weight"), tensors.get("embedding.weight")
    if head is None:
        return tensors
    if embedding is not None and not (head.shape == embedding.shape and torch.equal(head, embedding.to(head.dtype))):
        raise FileError(
            f"{source}: its configuration ties the head to the embedding (tie_word_embeddings), and its files hold two different "
            "tensors for them; set tie_word_embeddings to false if the head is its own"
        )
    return {**{name: tensor for name, tensor in tensors.items() if name != "head.weight"}, "embedding.weight": head}


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path) -> None:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    faults = [f"{what} {_some(names)}" for what, names in (("lacks", missing), ("has, beyond the model,", extra)) if names]
    if faults:
        raise FileError(f"{source}: {' and '.join(faults)} (in our names); the weights don't belong to this configuration")
    for name, tensor in expected.items():
        if not found[name].is_floating_point():
            raise FileError(f"{source}: {name} is stored as {found[name].dtype}; weights must be floating-point numbers")
        if tensor.shape != found[name].shape:
            raise FileError(f"{source}: {name} is {_by(found[name])} where the configuration says {_by(tensor)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _by(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
