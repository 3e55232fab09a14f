"""From shared bucket keys to the documents that stay: each one that goes is checked to be similar to one that stays.

Greedy, in order of preference: a document goes when its exact similarity to one that stays, in a bucket of both, reaches the
threshold; else it stays. A chain a ~ b ~ c whose ends differ keeps a and c. Joining whatever is linked, as peers do, drops c too.

Runs on the driver: one number per document and band, and one document at a time. N documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALL_PAIRS = 1 << 20
"""Checks within one bucket, about: of the documents of a larger one that stay, not all are compared with those that follow."""
FEWEST = 16
"""Documents of any bucket that the others are compared with, at least."""


@dataclass(frozen=True, slots=True)
class Kept:
    """For each row (N,) the row that stands for it: itself when it stays."""

    by: np.ndarray
    checked: int
    """Pairs whose exact similarity was looked at."""
    verified: int
    """Of those, pairs that reached the threshold: the documents that go."""


def buckets_of(keys: np.ndarray) -> list[np.ndarray]:
    """Groups of two or more rows that share a key in a column (N, bands): sorted row numbers, each distinct group once."""
    found: dict[bytes, np.ndarray] = {}
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        column = keys[order, band]
        starts = np.flatnonzero(np.concatenate(([True], column[1:] != column[:-1], [True]))) if len(column) else np.zeros(1, int)
        for start in np.flatnonzero(np.diff(starts) > 1):
            group = order[starts[start] : starts[start + 1]]
            found.setdefault(group.tobytes(), group)
    return [found[key] for key in sorted(found, key=lambda k: (found[k][0], len(found[k]), k))]


def keep(buckets: list[np.ndarray], rank: np.ndarray, sets: dict[int, np.ndarray], threshold: float) -> Kept:
    """Which rows stay, and which one stands for each of the others; no chance and no order of buckets bears on it.

    Args:
        rank: preference of each row (N,), all different; the lowest stays first.
        sets: for each row of a bucket its distinct shingles as small dense numbers.
    """
    by = np.arange(len(rank), dtype=np.int64)
    members = np.concatenate(buckets) if buckets else np.zeros(0, np.int64)
    homes = np.repeat(np.arange(len(buckets)), [len(group) for group in buckets]) if buckets else members
    most = [max(FEWEST, ALL_PAIRS // len(group)) for group in buckets]
    staying: list[list[int]] = [[] for _ in buckets]
    mark = np.zeros(1 + max((int(s.max()) for s in sets.values() if len(s)), default=0), dtype=bool)
    checked = 0
    order = np.lexsort((homes, rank[members]))
    rows, homes = members[order], homes[order]
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)]):
        row, own = int(rows[start]), homes[start:end].tolist()
        shingles = sets[row]
        candidates = sorted({other for home in own for other in staying[home]}, key=rank.__getitem__)
        mark[shingles] = True
        for other in candidates:
            checked += 1
            if similar(mark, len(shingles), sets[other], threshold):
                by[row] = other
                break
        else:
            for home in own:
                if len(staying[home]) < most[home]:
                    staying[home].append(row)
        mark[shingles] = False
    return Kept(by, checked, int(np.count_nonzero(by != np.arange(len(rank)))))


def similar(mark: np.ndarray, size: int, other: np.ndarray, threshold: float) -> bool:
    """Whether the Jaccard similarity of a set of `size` numbers, marked in `mark`, and `other` is at least `threshold`."""
    small, large = sorted((size, len(other)))
    if small < threshold * large:  # even a subset would not reach it
        return False
    common = int(np.count_nonzero(mark[other]))
    return common >= threshold * (small + large - common)
