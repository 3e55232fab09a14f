"""Ranks that share every matrix of a block (Megatron-LM, arXiv 1909.08053): which dimension is divided follows from its axes.

A matrix whose outputs are divided reads the whole input, and what reads those outputs is divided along its inputs and sums over
the ranks: one sum a part. Embedding, norms and head are whole on every rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from shoestring.architecture import ModelConfig
from shoestring.architecture.slot import Axis
from shoestring.errors import SettingError
from shoestring.train.parallel.layout import size

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

RULES: dict[Axis, str] = {"heads": "tensor", "kv_heads": "tensor", "inner": "tensor"}
"""Along which dimension of the mesh an axis is divided; what is not here is whole."""


def divide(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide the blocks' matrices in place.

    Raises:
        SettingError: heads or neurons that can't be divided equally.
    """
    shares, config = size(mesh, "tensor"), model.config
    if shares == 1:
        return
    assert isinstance(config, ModelConfig)
    for number, layer in enumerate(config.layers):
        for name in ("heads", "kv_heads"):
            if (count := getattr(layer.mixer, name, shares)) % shares:
                raise SettingError(f"layout.tensor: {shares} ranks can't share {count} {name} of layer {number} equally")
    plan: dict[str, ParallelStyle] = {}
    for slot in config.matrices():
        divided = [place for place, axis in enumerate(slot.axes) if RULES.get(axis) == "tensor"]
        if divided and slot.shape[divided[0]] % shares:
            raise SettingError(f"layout.tensor: {shares} ranks can't share {slot.shape[divided[0]]} rows of {slot.name} equally")
        if divided:
            plan[slot.name] = ColwiseParallel() if divided[0] == 0 else RowwiseParallel()
    parallelize_module(model, mesh["tensor"], plan)
