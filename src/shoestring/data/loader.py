"""Batches from memory-mapped tokens. What a step's batch holds depends on (seed, epoch, step) only.

Windows are visited in an order that the epoch's number gives (`ORDERS`); step s takes the sequences s*B to (s+1)*B-1 of this
endless order. So a run resumes exactly from its step number, and R ranks together see the batch that one rank would: rank r
takes rows r*B/R to (r+1)*B/R-1.

B sequences of one optimizer step over all ranks, T tokens of context.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shoestring.data.batch import Batch, on, pinned
from shoestring.data.orders import NOTHING, ORDERS, Known
from shoestring.data.packing import PACKINGS
from shoestring.errors import SettingError

if TYPE_CHECKING:
    import torch

AHEAD = 4
"""Batches read before they are asked for."""


class Batches(Protocol):
    """Anything that has a batch for every step."""

    def batch(self, step: int) -> Batch:
        """The batch of a step."""


class Loader:
    """Batches of windows of `context` predictions.

    Args:
        tokens: the stream, usually memory-mapped, (N,).
        offsets: where its documents start, with N as the last entry; only best-fit packing looks at it.
        batch: sequences of one step, over all ranks.
        packing: how documents fill windows, a name in `PACKINGS`.
        order: how an epoch goes through the windows, a name in `ORDERS`; known: what it may go by.

    Raises:
        SettingError: fewer tokens than one window, or a batch that the ranks can't share.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        offsets: np.ndarray,
        batch: int,
        context: int,
        seed: int = 0,
        packing: str = "stream",
        rank: int = 0,
        ranks: int = 1,
        order: str = "shuffled",
        known: Known = NOTHING,
    ) -> None:
        if batch < 1 or context < 1:
            raise SettingError(f"batch and context: must be at least 1, got {batch} and {context}")
        if batch % ranks or not 0 <= rank < ranks:
            raise SettingError(f"batch: {batch} sequences can't be shared by {ranks} ranks; give a multiple of {ranks}")
        self.batch_size, self.context, self.seed = batch, context, seed
        self.rank, self.ranks = rank, ranks
        self.packing = PACKINGS.choose(packing, "packing")(tokens, offsets, context)
        self.windows = len(self.packing)
        if self.windows == 0:
            raise SettingError(f"context: {len(tokens)} tokens do not fill a window of {context}; use more text or a shorter one")
        self._of_epoch = ORDERS.choose(order, "order")(known, seed, self.packing)
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every window once (the last may begin the next epoch)."""
        return -(-self.windows // self.batch_size)

    def chosen(self, step: int) -> np.ndarray:
        """The windows of a step, over all ranks, (B,)."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(places, self.windows)
        return np.concatenate([self._epoch(int(e))[within[epochs == e]] for e in np.unique(epochs)])

    def batch(self, step: int) -> Batch:
        """This rank's rows of a step's batch, (B / ranks, T)."""
        import torch

        share = self.batch_size // self.ranks
        windows = self.chosen(step)[self.rank * share : (self.rank + 1) * share]
        columns = zip(("tokens", "targets", "documents"), self.packing.rows(windows))
        return {name: torch.from_numpy(column) for name, column in columns}

    def _epoch(self, epoch: int) -> np.ndarray:
        """The order of windows in an epoch; kept, as the next step asks for it again."""
        known = self._order
        if known is None or known[0] != epoch:
            known = self._order = (epoch, self._of_epoch(epoch))
        return known[1]


def ahead(loader: Batches, start: int, stop: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """The batches of steps `start` to `stop`-1 on a device, read by a thread while the caller works.

    For a CUDA device the thread copies into page-locked memory, and the copy to the device does not block. What goes wrong in
    the thread is raised here; leaving the loop early ends the thread.
    """
    waiting: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=AHEAD)
    leave = threading.Event()
    cuda = str(device).startswith("cuda")

    def put(item: Batch | BaseException) -> None:
        while not leave.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in range(start, stop):
                if leave.is_set():
                    return
                batch = loader.batch(step)
                put(pinned(batch) if cuda else batch)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, name="loader", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            yield on(item, device, non_blocking=True) if cuda else item
    finally:
        leave.set()
        thread.join()
