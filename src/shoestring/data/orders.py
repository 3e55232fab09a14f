"""Orders: which windows of tokens an epoch reads, one after the other; a name in a table for each.

An order is a pure function of the epoch, and gives as many windows as there are: the loader's batch then depends on seed and
step alone, whatever the order. A window counts as the documents in it, by their share of its positions.

N windows, S pieces of documents in windows, D documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shoestring.choice import Choice, Table
from shoestring.errors import SettingError, nearest, shown

if TYPE_CHECKING:
    from shoestring.data.packing import Packing
    from shoestring.data.tokens import Tokens

Order = Callable[[int], np.ndarray]
"""From the number of an epoch to window numbers, int64 (N,)."""


@dataclass(frozen=True, slots=True)
class Known:
    """What an order may go by.

    Attributes:
        tokens: where the documents' sources and scores are; None when there are only numbers.
        score: the name of a score. mixture: weights of sources.
    """

    tokens: Tokens | None = None
    score: str = ""
    mixture: Mapping[str, float] = field(default_factory=dict)

    def column(self, name: str) -> list[object]:
        """A column of the training documents, (D,)."""
        if self.tokens is None:
            raise SettingError("order: needs a tokens artifact, whose documents have sources and scores")
        return list(self.tokens.documents((name,))[name].to_pylist())


NOTHING = Known()


def shuffled(known: Known, seed: int, packing: Packing) -> Order:
    """A fresh random order each epoch."""
    return lambda epoch: np.random.default_rng([seed, epoch]).permutation(len(packing))


def curriculum(known: Known, seed: int, packing: Packing) -> Order:
    """From low to high mean score; equal ones in a fresh random order each epoch."""
    scores_N, fresh = window_scores(known, packing), shuffled(known, seed, packing)

    def order(epoch: int) -> np.ndarray:
        windows = fresh(epoch)
        return windows[np.argsort(scores_N[windows], kind="stable")]

    return order


def importance(known: Known, seed: int, packing: Packing) -> Order:
    """Draws with replacement, each window by its mean score."""
    weights_N = window_scores(known, packing)
    if weights_N.min() < 0 or weights_N.sum() == 0:
        raise SettingError(f"order: importance draws by weight, and the score {known.score} is negative or all 0; use another")
    share_N = weights_N / weights_N.sum()
    return lambda epoch: np.random.default_rng([seed, epoch]).choice(len(share_N), len(share_N), p=share_N)


def mixed(known: Known, seed: int, packing: Packing) -> Order:
    """Sources in the shares of their weights, shuffled; each window of a source is seen once before any is seen again."""
    sources = known.column("source")
    numbers = {name: number for number, name in enumerate(sorted(map(str, set(sources))))}
    wrong = [name for name in known.mixture if name not in numbers]
    if wrong or not known.mixture:
        what = f"no source called {shown(wrong[0])}; {nearest(wrong[0], numbers)}" if wrong else "must give each source's weight"
        raise SettingError(f"mixture: {what}")
    parts = packing.pieces()
    held_NS = np.zeros((len(packing), len(numbers)))
    np.add.at(held_NS, (parts.windows, np.array([numbers[str(name)] for name in sources])[parts.documents]), parts.lengths)
    main_N = held_NS.argmax(axis=1)
    members = {name: np.flatnonzero(main_N == numbers[name]) for name, weight in known.mixture.items() if weight > 0}
    empty = [name for name, windows in members.items() if not len(windows)]
    if empty or not members:
        raise SettingError(f"mixture: no window is mostly of {', '.join(empty) or 'a source with a weight'}; leave it out")
    edges = np.round(np.cumsum([known.mixture[name] for name in members]) / sum(known.mixture.values()) * len(packing))
    counts = dict(zip(members, np.diff(edges, prepend=0).astype(int).tolist(), strict=True))

    def order(epoch: int) -> np.ndarray:
        drawn = [_endless(members[name], epoch * count, count, [seed, numbers[name]]) for name, count in counts.items()]
        return np.random.default_rng([seed, epoch]).permutation(np.concatenate(drawn))

    return order


def window_scores(known: Known, packing: Packing) -> np.ndarray:
    """Each window's mean of its documents' scores, by positions, (N,).

    Raises:
        SettingError: the tokens have no such score, or not for every document.
    """
    scores_D = np.array(known.column(f"scores.{known.score}"), dtype=np.float64)
    if np.isnan(scores_D).any():
        raise SettingError(f"order: {np.isnan(scores_D).sum():,} documents lack the score {known.score}; score this corpus")
    parts = packing.pieces()
    sums = np.bincount(parts.windows, scores_D[parts.documents] * parts.lengths, len(packing))
    return sums / np.bincount(parts.windows, parts.lengths, len(packing))


def _endless(windows: np.ndarray, start: int, count: int, seed: list[int]) -> np.ndarray:
    """`count` windows from place `start` on of lap after lap through all of them, each in an order of its own."""
    laps, places = np.divmod(np.arange(start, start + count), len(windows))

    def lap(number: int) -> np.ndarray:
        return windows[np.random.default_rng([*seed, number]).permutation(len(windows))[places[laps == number]]]

    return np.concatenate([windows[:0], *map(lap, np.unique(laps).tolist())])


SHUFFLED = Choice("shuffled", shuffled, "a fresh random order each epoch", "")
CURRICULUM = Choice("curriculum", curriculum, "from low to high score", "D6", "2108.02170", ("computation", "data"))
IMPORTANCE = Choice("importance", importance, "drawn by score, with replacement", "D5", "1803.00942", ("computation", "data"))
MIXED = Choice("mixed", mixed, "sources in given shares", "D7", "2305.10429", ("data",))
ORDERS: Table[Callable[[Known, int, Packing], Order]] = Table("Pretrain.order", SHUFFLED, CURRICULUM, IMPORTANCE, MIXED)
