"""From shared bucket keys to clusters: which pairs to check, and union-find over those that pass.

Runs on the driver: one number per document and band, and the pairs of one bucket at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ALL_PAIRS = 1 << 20
"""Candidate pairs of one bucket that are all checked; of a larger bucket, this many."""


@dataclass(slots=True)
class Clusters:
    """Union-find over documents 0..N-1; a cluster's root is its smallest number."""

    parent: np.ndarray

    @classmethod
    def of(cls, count: int) -> Clusters:
        """Every document alone."""
        return cls(np.arange(count, dtype=np.int64))

    def root(self, item: int) -> int:
        """The smallest member of the item's cluster."""
        path = []
        while (above := int(self.parent[item])) != item:
            path.append(item)
            item = above
        self.parent[path] = item
        return item

    def join(self, left: int, right: int) -> None:
        """Make two clusters one."""
        first, second = sorted((self.root(left), self.root(right)))
        self.parent[second] = first

    def labels(self) -> np.ndarray:
        """The root of every document, (N,)."""
        labels = self.parent.copy()
        while not np.array_equal(labels, above := labels[labels]):
            labels = above
        return labels


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


def candidate_rounds(buckets: list[np.ndarray], clusters: Clusters) -> Iterator[np.ndarray]:
    """Pairs to check, in two rounds that together find the same clusters as all pairs would, for less.

    First every member against the next one and the first one of its bucket; then, once those are joined, all pairs of a
    bucket whose ends are still in different clusters.
    """
    near = [np.stack([g[:-1], g[1:]], 1) for g in buckets] + [np.stack([np.repeat(g[:1], len(g) - 2), g[2:]], 1) for g in buckets]
    if near:
        yield np.unique(np.concatenate(near), axis=0)
    labels = clusters.labels()
    rest = []
    for group in buckets:
        if len(group) > 2 and len(np.unique(labels[group])) > 1:
            left, right = _pairs(len(group))
            apart = labels[group[left]] != labels[group[right]]
            rest.append(np.stack([group[left[apart]], group[right[apart]]], 1))
    if rest:
        first = np.unique(np.concatenate(near), axis=0)
        second = np.unique(np.concatenate(rest), axis=0)
        width = int(labels.size) + 1
        yield second[~np.isin(second[:, 0] * width + second[:, 1], first[:, 0] * width + first[:, 1])]


def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs i < j of `count` items, cut at `ALL_PAIRS`."""
    if count * (count - 1) // 2 <= ALL_PAIRS:
        left, right = np.triu_indices(count, 1)
        return left, right
    steps = ALL_PAIRS // count
    left = np.tile(np.arange(count), steps)
    right = left + np.repeat(np.arange(1, steps + 1), count)
    return left[right < count], right[right < count]
