"""What is done to a model from outside so that it trains fast, in one order; all of it is undone afterwards.

    1. kernels      float32 products that remain may use TF32; fixed summation order where asked for; a CPU keeps freed memory
    2. precision    autocast around each forward pass; weights stay float32
    3. compile      embedding, each block, last norm: regions, so that twelve equal blocks compile once

Recomputation and sharding will come between 2 and 3.
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


@contextmanager
def applied(model: nn.Module, settings: Training, device: torch.device) -> Iterator[None]:
    """The model, made ready as the settings say while the block runs."""
    with _kernels(settings, device), COMPILES[settings.compile](model):
        yield


def precision(settings: Training, device: torch.device) -> AbstractContextManager[Any]:
    """The context of one forward pass."""
    dtype = getattr(torch, PRECISIONS[settings.precision])
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


@contextmanager
def _kernels(settings: Training, device: torch.device) -> Iterator[None]:
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
