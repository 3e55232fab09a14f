"""How the ranks of a run are arranged: a mesh of devices, and which piece of a tensor a rank holds.

The batch's rows are divided among `replicate` x `shard` ranks. Along `shard` the weights, gradients and optimizer state are
divided too (ZeRO-3, arXiv 1910.02054), along `replicate` each rank has its own copy; `tensor` ranks share every matrix of a block
(Megatron-LM, arXiv 1909.08053) and read the same rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import prod
from typing import TYPE_CHECKING, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from shoestring.data.batch import Batch
from shoestring.errors import SettingError
from shoestring.train.parallel.ranks import ranks

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

Model = TypeVar("Model", bound=nn.Module)

DATA = ("replicate", "shard")
"""Dimensions of the mesh along which a batch's rows are divided."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Ranks along each dimension of the mesh."""

    replicate: int = 1
    shard: int = 1
    tensor: int = 1

    def mesh(self, device: str) -> DeviceMesh:
        """The mesh of this run's processes; neighbours along `tensor` are next to each other, so within one host.

        Raises:
            SettingError: as many processes as it needs are not there.
        """
        from torch.distributed.device_mesh import init_device_mesh

        if prod(astuple(self)) != ranks():
            raise SettingError(f"layout: {self} needs {prod(astuple(self))} processes, and {ranks()} were started")
        return init_device_mesh(device, astuple(self), mesh_dim_names=(*DATA, "tensor"))


def size(mesh: DeviceMesh | None, *names: str) -> int:
    """Ranks along some dimensions together."""
    return 1 if mesh is None else prod(mesh[name].size() for name in names)


def share(mesh: DeviceMesh) -> int:
    """Which share of a batch's rows this rank reads: `tensor` ranks beside each other read the same."""
    return mesh["replicate"].get_local_rank() * size(mesh, "shard") + mesh["shard"].get_local_rank()


def rows(batch: Batch, mesh: DeviceMesh | None) -> Batch:
    """The rows of a batch that this rank reads.

    Raises:
        SettingError: they can't be divided equally.
    """
    if mesh is None:
        return batch
    count, shares = len(batch["tokens"]), size(mesh, *DATA)
    if count % shares:
        raise SettingError(f"layout: {count} sequences of a step can't be shared by {shares} ranks; give a multiple")
    own = share(mesh)
    return {name: column[own * count // shares : (own + 1) * count // shares] for name, column in batch.items()}


def sums(values: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """Values summed over all ranks that read other rows."""
    for name in DATA if mesh is not None else ():
        if size(mesh, name) > 1:
            torch.distributed.all_reduce(values, group=mesh[name].get_group())  # type: ignore[index]
    return values


def divided(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether ranks hold pieces of it, or copies that they know of. Importing what answers that takes half a second."""
    library = sys.modules.get("torch.distributed.tensor")
    return library is not None and isinstance(tensor, library.DTensor)


def apart(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Tensors in lists that one operation over many can take: those of one mesh, and plain ones."""
    found: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(id(tensor.device_mesh) if divided(tensor) else 0, []).append(tensor)
    return list(found.values())


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is divided among ranks, on every one of them."""
    return tensor.full_tensor() if divided(tensor) else tensor


def piece(tensor: Tensor) -> tuple[slice, ...]:
    """Where in the whole tensor the piece lies that this rank holds."""
    if not divided(tensor):
        return tuple(slice(0, length) for length in tensor.shape)
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    lengths, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(slice(offset, offset + length) for offset, length in zip(offsets, lengths))


def owned(tensor: DTensor) -> bool:
    """Whether this rank is the first of those that hold the same piece, and the piece is not empty."""
    place = tensor.device_mesh.get_coordinate()
    first = all(at == 0 for at, how in zip(place or (), tensor.placements) if how.is_replicate())
    return first and tensor.to_local().numel() > 0


def like(whole: Tensor, other: Tensor) -> Tensor:
    """A whole tensor divided as another of its shape is; as it is where the other is whole."""
    if not divided(other) or whole.shape != other.shape:
        return whole
    from torch.distributed.tensor import DTensor

    local = whole[piece(other)].to(other.device).contiguous()
    return DTensor.from_local(
        local, other.device_mesh, other.placements, run_check=False, shape=other.shape, stride=other.stride()
    )


def join(model: Model) -> Model:
    """Make a model whole again, in place, as if it had never been divided. Every rank must call it."""
    if not any(divided(parameter) for parameter in model.parameters()):
        return model
    from torch.distributed.fsdp import FSDPModule

    made: dict[int, nn.Parameter] = {}  # what is tied stays tied
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if divided(parameter):
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(whole(parameter).detach(), parameter.requires_grad)
                module.register_parameter(name, made[id(parameter)])
    for module in model.modules():
        module._forward_hooks.clear()  # of those who divided it
        module._forward_pre_hooks.clear()
        if isinstance(module, FSDPModule):
            module.__class__ = type(module).__bases__[1]
    return model
