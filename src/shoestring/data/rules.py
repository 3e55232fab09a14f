"""Rules of selection: from documents' scores to which of them stay. Pure functions over arrays; none knows what a score means.

N documents, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shoestring.choice import Choice, Table
from shoestring.errors import SettingError

ITERATIONS = 10
"""Of k-means: clusters only decide which pairs are compared."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Documents in the order of the corpus: values (N,) or (N, D), sizes in bytes (N,), and the seed of every draw."""

    values: np.ndarray
    sizes: np.ndarray
    seed: int


class Bounds(Protocol):
    """What rules read of the settings of `select`."""

    @property
    def least(self) -> float | None:
        """Lowest score that stays."""

    @property
    def most(self) -> float | None:
        """Highest."""

    @property
    def temperature(self) -> float:
        """Higher is closer to chance."""

    @property
    def similarity(self) -> float:
        """Cosine above which only one of two stays."""

    @property
    def sign(self) -> float:
        """What a value is multiplied with so that higher is better."""

    def wanted(self, sizes: np.ndarray) -> float:
        """Bytes to keep of documents of these sizes."""


Rule = Callable[[Scored, Bounds], np.ndarray]
"""Which documents stay, bool (N,)."""


def threshold(scored: Scored, settings: Bounds) -> np.ndarray:
    """Those whose value is at least `least` and at most `most`."""
    lowest = -np.inf if settings.least is None else settings.least
    highest = np.inf if settings.most is None else settings.most
    stay: np.ndarray = (numbers(scored) >= lowest) & (numbers(scored) <= highest)
    return stay


def top(scored: Scored, settings: Bounds) -> np.ndarray:
    """The best ones until the share of the bytes is full; of equal ones the first."""
    return _filled(settings.sign * numbers(scored), scored.sizes, settings.wanted(scored.sizes))


def gumbel(scored: Scored, settings: Bounds) -> np.ndarray:
    """A draw without replacement by weight exp(value / temperature): the top of value / temperature + Gumbel noise."""
    noise = np.random.default_rng(scored.seed).gumbel(size=len(scored.sizes))
    keys = settings.sign * numbers(scored) / settings.temperature + noise
    return _filled(keys, scored.sizes, settings.wanted(scored.sizes))


def semantic(scored: Scored, settings: Bounds) -> np.ndarray:
    """SemDeDup: within a cluster, a document goes when its cosine similarity to one that stays is above `similarity`.

    Documents far from their cluster's centre come first. (The paper also drops what is similar only to one that goes.)
    """
    if scored.values.ndim != 2:
        raise SettingError("select.rule: semantic compares embeddings, and the score is one number a document; choose another")
    unit_ND = scored.values / np.maximum(np.linalg.norm(scored.values, axis=1, keepdims=True), 1e-12)
    centres_KD, cluster_N = clusters(unit_ND, max(1, round(len(unit_ND) ** 0.5)), scored.seed)
    near_N = (unit_ND * centres_KD[cluster_N]).sum(axis=1)
    stay = np.zeros(len(unit_ND), dtype=bool)
    for cluster in range(len(centres_KD)):
        members = np.flatnonzero(cluster_N == cluster)
        kept_MD, count = np.empty((len(members), unit_ND.shape[1]), unit_ND.dtype), 0
        for member in members[np.argsort(near_N[members], kind="stable")]:
            if not count or (kept_MD[:count] @ unit_ND[member]).max() <= settings.similarity:
                kept_MD[count], count, stay[member] = unit_ND[member], count + 1, True
    return stay


def clusters(unit_ND: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spherical k-means: unit centres (K, D), and the number of each document's cluster (N,)."""
    centres_KD = unit_ND[np.sort(np.random.default_rng(seed).choice(len(unit_ND), count, replace=False))].copy()
    for _ in range(ITERATIONS):
        cluster_N = (unit_ND @ centres_KD.T).argmax(axis=1)
        sums_KD = np.zeros_like(centres_KD)
        np.add.at(sums_KD, cluster_N, unit_ND)
        lengths_K1 = np.linalg.norm(sums_KD, axis=1, keepdims=True)
        centres_KD = np.where(lengths_K1 > 0, sums_KD / np.maximum(lengths_K1, 1e-12), centres_KD)
    return centres_KD, (unit_ND @ centres_KD.T).argmax(axis=1)


def numbers(scored: Scored) -> np.ndarray:
    """The values of a score that is one number a document.

    Raises:
        SettingError: it is an embedding.
    """
    if scored.values.ndim != 1:
        raise SettingError("select.score: is an embedding, which only the rule semantic compares; name a score of numbers")
    return scored.values


def _filled(keys: np.ndarray, sizes: np.ndarray, wanted: float) -> np.ndarray:
    """Those of the highest keys that fit in so many bytes, and always the first."""
    order = np.argsort(-keys, kind="stable")
    stay = np.zeros(len(keys), dtype=bool)
    stay[order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right")))]] = True
    return stay


SAVES = ("computation", "data", "storage")
THRESHOLD = Choice("threshold", threshold, "scores between two bounds", "D3", "2309.04564", SAVES)
TOP = Choice("top", top, "the best share of the text", "D3", "2309.04564", SAVES)
GUMBEL = Choice("gumbel", gumbel, "a seeded draw by weight, without replacement", "D5", "2302.03169", SAVES)
SEMANTIC = Choice("semantic", semantic, "one of documents whose embeddings are close", "D1", "2303.09540", SAVES)
RULES: Table[Rule] = Table("Select.rule", THRESHOLD, TOP, GUMBEL, SEMANTIC)
