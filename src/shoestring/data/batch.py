"""A batch: columns by name, each with one row a sequence, so that all are sliced alike.

    tokens     (B, T) int64, the inputs
    targets    (B, T) int64, the token that follows each input; IGNORED is not counted
    documents  (B, T) int64, the number of each position's document within its row, -1 for padding; only where documents are kept
               apart

An objective may ask for more columns: a second answer, a reward, a teacher's stored logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Batch = Mapping[str, "Tensor"]

IGNORED = -100
"""A target that does not count; PyTorch's own `ignore_index`."""


def on(batch: Batch, device: torch.device | str, non_blocking: bool = False) -> Batch:
    """The batch on a device."""
    return {name: column.to(device, non_blocking=non_blocking) for name, column in batch.items()}


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, from which copies to a GPU run beside its work."""
    return {name: column.pin_memory() for name, column in batch.items()}


def parts(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in so many parts along its rows, none empty; their sizes differ by one at the most."""
    split = {name: column.tensor_split(count) for name, column in batch.items()}
    for number in range(min(count, len(batch["tokens"]))):
        yield {name: columns[number] for name, columns in split.items()}
