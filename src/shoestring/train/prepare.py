"""What is done to a model so that it trains, in one order, before its optimizer is made; none of it is undone.

    1. tensor       first, since it replaces the matrices that all else wraps
    2. compile      embedding, each block, last norm: regions, so that twelve equal blocks compile once; before the next, whose
                    gathering of weights must stay outside the compiled code
    3. data         last: it divides whatever parameters there are by then

The optimizer is made of what comes out, so its state is divided as the weights are.

Around the steps stand the kernels (`kernels`) and around each forward pass the precision (`precision`), which leave the model
as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from shoestring.measure.memory import held_heap
from shoestring.train.compiling import COMPILES
from shoestring.train.precision import PRECISIONS
from shoestring.train.settings import Training

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def prepare(model: nn.Module, settings: Training, mesh: DeviceMesh | None = None) -> None:
    """Make the model ready for its settings and for the ranks that train it, in place.

    Without a mesh a second time changes nothing.

    Raises:
        SettingError: ranks that can't share it.
    """
    if mesh is None:
        COMPILES[settings.compile](model)
        return
    from shoestring.train.parallel import data, tensor

    tensor.divide(model, mesh)
    COMPILES[settings.compile](model)
    data.divide(model, mesh)


def precision(settings: Training, device: torch.device) -> AbstractContextManager[Any]:
    """The context of one forward pass: autocast, or nothing; weights stay float32."""
    dtype = getattr(torch, PRECISIONS[settings.precision])
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


@contextmanager
def kernels(settings: Training, device: torch.device) -> Iterator[None]:
    """A block in which float32 products that remain may use TF32, sums have a fixed order where asked for, and a CPU keeps
    freed memory.
    """
    if device.type != "cuda":
        with held_heap():
            yield
        return
    before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    if settings.precision == "bf16":
        torch.set_float32_matmul_precision("high")
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.use_deterministic_algorithms(before[1])
