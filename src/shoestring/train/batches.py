"""The batches of a run, on the device, and their parts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import torch

from shoestring.train.restart import Place

if TYPE_CHECKING:
    from shoestring.data.loader import Batch, Loader


def source(batches: Loader | Callable[[int], Batch], place: Place, device: torch.device) -> Generator[Batch, None, None]:
    """The batches of the steps that are left; those of a loader are read ahead in a thread."""
    start, stop = place.step, place.course.end
    if callable(batches):
        for step in range(start, stop):
            yield batches(step).to(device)
        return
    from shoestring.data.loader import ahead

    yield from ahead(batches, start, stop, device)


def parts(batch: Batch, count: int) -> Iterator[Batch]:
    """A batch in so many parts along its sequences; their sizes differ by one at the most."""
    columns = (batch.tokens_BT, batch.targets_BT, batch.documents_BT)
    split = [[None] * count if column is None else column.tensor_split(count) for column in columns]
    for part in zip(*split):
        if part[0] is not None and len(part[0]):
            yield type(batch)(*part)
