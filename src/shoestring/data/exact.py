"""Exact duplicates: documents whose text is the same up to white space; the first one stays (Lee et al., arXiv 2107.06499).

A model learns by heart what it reads often, and computation spent on a copy teaches nothing new. Two 64-bit hashes with
different seeds stand for a text: among a billion documents the chance of one false match is 1e-21.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from shoestring.data import cost, documents
from shoestring.data.documents import Drop
from shoestring.measure import Hardware
from shoestring.technique import Prediction, Sketch, State, Task, Technique, Watch


def duplicates(table: Any) -> dict[int, int]:
    """In a Daft table with `order` and `text`: the order of every later copy, with that of its first one."""
    from shoestring.data import engine

    text = engine.normalised()
    hashed = engine.ordered(table.select("order", *(engine.hashed(text, seed).alias(f"hash{seed}") for seed in (0, 1))))
    return later_copies(hashed["order"].to_numpy(), hashed["hash0"].to_numpy(), hashed["hash1"].to_numpy())


def later_copies(orders: np.ndarray, *hashes: np.ndarray) -> dict[int, int]:
    """For ascending `orders` (N,) and hashes (N,) each: every later copy, with the first document that has its hashes."""
    if len(orders) == 0:
        return {}
    sorting = np.lexsort((orders, *hashes))
    fresh = np.zeros(len(orders), dtype=bool)
    fresh[0] = True
    for column in hashes:
        fresh[1:] |= column[sorting[1:]] != column[sorting[:-1]]
    first = np.maximum.accumulate(np.where(fresh, np.arange(len(orders)), 0))
    copies = np.flatnonzero(~fresh)
    return dict(zip(orders[sorting[copies]].tolist(), orders[sorting[first[copies]]].tolist(), strict=True))


class Exact(Technique):
    """Drops documents whose text, white space aside, came before."""

    name: ClassVar[str] = "exact"
    room: ClassVar[str] = "data"
    row: ClassVar[str] = "D1"
    paper: ClassVar[str] = "2107.06499"
    saves: ClassVar[tuple[str, ...]] = ("computation", "data", "storage")
    reads: ClassVar[tuple[str, ...]] = ("corpus",)
    gives: ClassVar[str] = "corpus"

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Time from bytes; the share that stays is assumed."""
        return cost.filtering("exact", sketch, hardware)

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Hash, find copies, keep the first."""
        from shoestring.data import engine

        def find(source: Path) -> dict[int, Drop]:
            copies = duplicates(engine.read(source))
            names = documents.ids(source, set(copies.values()))
            return {order: Drop("exact duplicate", f"of {names[first]}") for order, first in copies.items()}

        return documents.keep(state, task, watch, self.name, find)
