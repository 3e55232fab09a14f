"""What is done to a model so that it trains, in one order, before its optimizer is made; none of it is undone.

    1. compile      embedding, each block, last norm: regions, so that twelve equal blocks compile once

Around the steps stand the kernels (`kernels`) and around each forward pass the precision (`precision`), which leave the model
as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from shoestring.measure.memory import held_heap
from shoestring.train.compiling import COMPILES
from shoestring.train.precision import PRECISIONS
from shoestring.train.settings import Training


def prepare(model: nn.Module, settings: Training) -> None:
    """Make the model ready as the settings say, in place; a second time changes nothing."""
    COMPILES[settings.compile](model)


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
