"""Near-duplicates: MinHash signatures propose pairs, the exact Jaccard similarity decides, one document of a cluster stays.

Signature: for each of b*r hash functions the smallest hash over a document's shingles (w consecutive words); two documents
agree in one entry with probability J, their Jaccard similarity (Broder 1997). Entries are cut in b bands of r rows; documents
that agree in a whole band are a candidate pair: P(J) = 1 - (1 - J^r)^b (Lee et al., arXiv 2107.06499, appendix A).
Peers stop there and over-delete 6-41 %; here every pair is checked on its true shingle sets: no false positive remains.

N documents, R hash functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from shoestring.data import cost, documents
from shoestring.data.clusters import Clusters, buckets_of, candidate_rounds
from shoestring.data.documents import Drop
from shoestring.measure import Hardware
from shoestring.technique import Part, Prediction, Sketch, State, Technique, Work

MISSED = 5e-4
"""Chance that a pair exactly at the threshold shares no band."""
HASHES = 128
"""Hash functions we allow ourselves; more rows mean fewer false candidates, but more bands to miss nothing."""


def bands_and_rows(threshold: float) -> tuple[int, int]:
    """The most rows for which the bands that miss at most `MISSED` at the threshold fit in `HASHES` functions.

    >>> bands_and_rows(0.8)
    (20, 5)
    """
    for rows in range(32, 0, -1):
        bands = math.ceil(math.log(MISSED) / math.log1p(-(threshold**rows))) if threshold < 1 else 1
        if bands * rows <= HASHES:
            return bands, rows
    return HASHES, 1


def band_keys(signatures: pa.Array, bands: int, rows: int) -> pa.Array:
    """One 64-bit key per band of each signature (fixed lists of R uint32): a list<uint64> array of N x bands."""
    signatures_NR = np.asarray(signatures.flatten(), dtype=np.uint64).reshape(-1, bands, rows)
    keys = np.repeat(np.arange(1, bands + 1, dtype=np.uint64)[None], len(signatures_NR), axis=0)
    for row in range(rows):
        keys = _mix(keys ^ _mix(signatures_NR[:, :, row]))
    offsets = np.arange(0, keys.size + 1, bands, dtype=np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(keys.ravel()))


def shingle_sets(words: pa.Array, width: int) -> pa.Array:
    """The distinct shingles of documents given as lists of word hashes: sorted 64-bit numbers, list<uint64>.

    A document with fewer than `width` words is one shingle.
    """
    offsets = np.asarray(words.offsets, dtype=np.int64)
    hashes = _mix(np.asarray(words.values, dtype=np.uint64))
    # Position by position: a shingle is the mixed sum of its words, each turned by its place.
    sums = np.zeros(len(hashes), np.uint64)
    for place in range(width):
        sums[: len(hashes) - place] += _turn(hashes[place:], 13 * place)
    sums = _mix(sums)
    found, ends = [], [0]
    for start, end in pairwise(offsets.tolist()):
        last = end - width + 1
        if last > start:
            unique = np.unique(sums[start:last])
        else:
            short = [_turn(hashes[start + place : start + place + 1], 13 * place) for place in range(end - start)]
            unique = _mix(np.stack(short).sum(axis=0)) if short else hashes[:0]
        found.append(unique)
        ends.append(ends[-1] + len(unique))
    values = np.concatenate(found) if found else np.zeros(0, np.uint64)
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(values))


def verify(pairs: np.ndarray, sets: dict[int, np.ndarray], threshold: float) -> np.ndarray:
    """Which pairs of documents (P, 2) have Jaccard similarity of at least `threshold`: P booleans.

    Args:
        sets: for each document its distinct shingles as small dense numbers.
    """
    kept = np.zeros(len(pairs), dtype=bool)
    mark = np.zeros(1 + max((int(s.max()) for s in sets.values() if len(s)), default=0), dtype=bool)
    order = np.lexsort((pairs[:, 1], pairs[:, 0])) if len(pairs) else np.zeros(0, np.int64)
    current = -1
    for index in order:
        left, right = int(pairs[index, 0]), int(pairs[index, 1])
        small, large = sorted((len(sets[left]), len(sets[right])))
        if small < threshold * large:  # even a subset would not reach it
            continue
        if left != current:
            if current >= 0:
                mark[sets[current]] = False
            mark[sets[left]] = True
            current = left
        common = int(np.count_nonzero(mark[sets[right]]))
        kept[index] = common >= threshold * (small + large - common)
    return kept


@dataclass(frozen=True, slots=True)
class Found:
    """What deduplication found: `orders` of the documents (N,) and the smallest-order member of each one's cluster (N,)."""

    orders: np.ndarray
    clusters: np.ndarray
    sizes: np.ndarray
    """Bytes of each document (N,)."""
    candidates: int
    """Pairs that shared a band and were checked."""
    verified: int
    """Of those, pairs whose exact similarity reached the threshold."""


def find(table: Any, threshold: float, shingle: int, seed: int = 1) -> Found:
    """The clusters of near-duplicates in a Daft table with `order` and `text`.

    Two passes over the text: signatures and buckets for all, shingle sets for those that share a bucket. Buckets, sets of
    candidates and union-find stay on the driver: about 200 bytes a document and 1.3 bytes a byte of candidate text.
    """
    from shoestring.data import engine

    bands, rows = bands_and_rows(threshold)
    signature = engine.normalised().minhash(num_hashes=bands * rows, ngram_size=shingle, seed=seed, hash_function="xxhash3_64")
    keyed = engine.column(lambda s: band_keys(s, bands, rows), [signature], pa.large_list(pa.uint64()))
    signed = engine.ordered(table.select("order", engine.length("text").alias("size"), keyed.alias("keys")))
    orders = signed["order"].to_numpy()
    buckets = buckets_of(np.asarray(signed["keys"].combine_chunks().values, dtype=np.uint64).reshape(-1, bands))
    members = np.unique(np.concatenate(buckets)) if buckets else np.zeros(0, np.int64)
    clusters = Clusters.of(len(orders))
    checked, verified = 0, 0
    if len(members):
        sets = _dense(_sets(engine, engine.only(table, "order", orders[members]), shingle), orders)
        for pairs in candidate_rounds(buckets, clusters):
            good = pairs[verify(pairs, sets, threshold)]
            checked, verified = checked + len(pairs), verified + len(good)
            for left, right in good.tolist():
                clusters.join(left, right)
    return Found(orders, orders[clusters.labels()], signed["size"].to_numpy(), checked, verified)


class MinHash(Technique):
    """Drops near-duplicates: MinHash finds candidates, their exact Jaccard similarity over word shingles decides."""

    name: ClassVar[str] = "minhash"
    room: ClassVar[str] = "data"
    row: ClassVar[str] = "D1"
    paper: ClassVar[str] = "2107.06499"
    saves: ClassVar[tuple[str, ...]] = ("computation", "data", "storage")
    reads: ClassVar[tuple[Part, ...]] = ("corpus",)
    gives: ClassVar[Part] = "corpus"

    threshold: float = Field(default=0.8, ge=0.3, le=1.0)
    """Jaccard similarity from which two documents are near-duplicates."""
    shingle: int = Field(default=5, ge=1, le=32)
    """Consecutive words of one shingle."""
    keep: Literal["first", "longest"] = "first"
    """Which document of a cluster stays: "first" of the corpus, or the "longest" (the first of equals)."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Time from bytes; the share that stays is assumed."""
        return cost.filtering("minhash", sketch, hardware)

    def apply(self, state: State, work: Work) -> State:
        """Find clusters, keep one document of each."""
        from shoestring.data import engine

        more: dict[str, Any] = {}

        def duplicates(source: Path) -> dict[int, Drop]:
            found = find(engine.read(source), self.threshold, self.shingle)
            bands, rows = bands_and_rows(self.threshold)
            more["minhash"] = {"bands": bands, "rows": rows, "candidates": found.candidates, "verified": found.verified}
            return drops(found, source, self.keep)

        return documents.keep(state, work, self.name, duplicates, more)


def drops(found: Found, source: Path, keep: str) -> dict[int, Drop]:
    """All but one document of each cluster, each with the id of the one that stays."""
    best: dict[int, tuple[int, int]] = {}
    for order, cluster, size in zip(found.orders.tolist(), found.clusters.tolist(), found.sizes.tolist()):
        entry = (-size if keep == "longest" else 0, order)
        best[cluster] = min(best.get(cluster, entry), entry)
    gone = [(order, best[c][1]) for order, c in zip(found.orders.tolist(), found.clusters.tolist()) if best[c][1] != order]
    names = documents.ids(source, {kept for _, kept in gone})
    return {order: Drop("near-duplicate", f"of {names[kept]}") for order, kept in gone}


def _sets(engine: Any, table: Any, shingle: int) -> pa.Table:
    words = engine.word_hashes()
    shingles = engine.column(lambda w: shingle_sets(w, shingle), [words], pa.large_list(pa.uint64()))
    return engine.ordered(table.select("order", shingles.alias("shingles")))


def _dense(sets: pa.Table, orders: np.ndarray) -> dict[int, np.ndarray]:
    """Shingle sets by row number, their 64-bit hashes replaced by small numbers."""
    lists = sets["shingles"].combine_chunks()
    offsets = np.asarray(lists.offsets, dtype=np.int64)
    _, dense = np.unique(np.asarray(lists.values, dtype=np.uint64), return_inverse=True)
    rows = np.searchsorted(orders, sets["order"].to_numpy())
    return {int(row): dense[start:end] for row, start, end in zip(rows, offsets[:-1], offsets[1:])}


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3: a bijection of 64-bit numbers that spreads every bit over all."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def _turn(values: np.ndarray, bits: int) -> np.ndarray:
    return (values << np.uint64(bits % 64)) | (values >> np.uint64((64 - bits) % 64)) if bits % 64 else values
