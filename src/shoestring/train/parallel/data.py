"""Ranks that read other rows: each block's weights are gathered before it runs and their gradients summed behind it (FSDP2).

Where only `replicate` ranks are there, each holds all weights and gradients are summed over all: distributed data parallel is
the same with shards of one piece. A tied embedding and head are gathered once, with what stands outside the blocks, for the
whole pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.distributed.fsdp import fully_shard

from shoestring.train.parallel.layout import DATA, size

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def divide(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide the parameters in place. Gradients come out as means over the ranks: multiply by their number."""
    if size(mesh, *DATA) == 1:
        return
    names = DATA if size(mesh, "replicate") > 1 else ("shard",)
    for block in getattr(model, "blocks", []):
        fully_shard(block, mesh=mesh[names])
    fully_shard(model, mesh=mesh[names])
