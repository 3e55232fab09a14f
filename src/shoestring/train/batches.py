"""The batches of a run, on the device."""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch

from shoestring.data.batch import Batch, on
from shoestring.data.loader import Loader, ahead
from shoestring.train.restart import Place


def source(batches: Loader | Callable[[int], Batch], place: Place, device: torch.device) -> Generator[Batch, None, None]:
    """The batches of the steps that are left; those of a loader are read ahead in a thread."""
    start, stop = place.step, place.course.end
    if callable(batches):
        for step in range(start, stop):
            yield on(batches(step), device)
        return
    yield from ahead(batches, start, stop, device)
