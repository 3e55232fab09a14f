"""Near-duplicates: MinHash signatures propose pairs, the exact Jaccard similarity decides; what goes is similar to what stays.

Signature: for each of b*r hash functions the smallest hash over a document's shingles (w consecutive words; characters of
scripts that put no spaces between words); two documents agree in one entry with probability J, their Jaccard similarity
(Broder 1997). Entries are cut in b bands of r rows; documents that agree in a whole band are a candidate pair:
P(J) = 1 - (1 - J^r)^b (Lee et al., arXiv 2107.06499, appendix A). Peers stop there, or drop all but one of whatever is
linked; here a document goes only when its true shingle set is similar to that of one that stays: no false drop is left.

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

from shoestring.data import cost, documents, near
from shoestring.data.documents import Drop
from shoestring.measure import Hardware
from shoestring.technique import Prediction, Sketch, State, Task, Technique, Watch

Units = Literal["auto", "words", "characters"]
Keep = Literal["first", "longest"]
PRECISION = "dropped documents whose exact similarity to one that stays reaches the threshold: each is checked"
MANY = 0.2
"""Share of documents of one shingle or none from which a note is given."""
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


@dataclass(frozen=True, slots=True)
class Found:
    """`orders` of the documents (N,), and `kept`: for each the order of the one that stays for it, its own when it stays (N,)."""

    orders: np.ndarray
    kept: np.ndarray
    candidates: int
    """Pairs that shared a band and were checked."""
    short: int
    """Documents of one shingle or none: they are similar only to those with the same words."""


def find(table: Any, threshold: float, shingle: int, units: Units = "auto", keep: Keep = "first", seed: int = 1) -> Found:
    """Which documents of a Daft table with `order` and `text` stay, and which of these stands for each other one.

    Two passes over the text: signatures and buckets for all, shingle sets for those that share a bucket. Buckets, sets of
    candidates and what stays are on the driver: about 200 bytes a document and 1.3 bytes a byte of candidate text.
    """
    from shoestring.data import engine

    bands, rows = bands_and_rows(threshold)
    text = engine.spaced(units)
    signature = text.minhash(num_hashes=bands * rows, ngram_size=shingle, seed=seed, hash_function="xxhash3_64")
    keyed = engine.column(lambda s: band_keys(s, bands, rows), [signature], pa.large_list(pa.uint64()))
    columns = (engine.length("text").alias("size"), engine.longer(text, shingle).alias("long"), keyed.alias("keys"))
    signed = engine.ordered(table.select("order", *columns))
    orders, sizes = signed["order"].to_numpy(), signed["size"].to_numpy().astype(np.int64)
    short = len(orders) - int(np.count_nonzero(signed["long"].to_numpy(zero_copy_only=False)))
    buckets = near.buckets_of(np.asarray(signed["keys"].combine_chunks().values, dtype=np.uint64).reshape(-1, bands))
    if not buckets:
        return Found(orders, orders, 0, short)
    members = np.unique(np.concatenate(buckets))
    sets = _dense(_sets(engine, engine.only(table, "order", orders[members]), text, shingle), orders)
    rank = np.empty(len(orders), np.int64)
    rank[np.lexsort((orders, -sizes if keep == "longest" else orders))] = np.arange(len(orders))
    found = near.keep(buckets, rank, sets, threshold)
    return Found(orders, orders[found.by], found.checked, short)


class MinHash(Technique):
    """Drops near-duplicates: MinHash finds candidates, their exact Jaccard similarity to one that stays decides."""

    name: ClassVar[str] = "minhash"
    version: ClassVar[int] = 2
    room: ClassVar[str] = "data"
    row: ClassVar[str] = "D1"
    paper: ClassVar[str] = "2107.06499"
    saves: ClassVar[tuple[str, ...]] = ("computation", "data", "storage")
    reads: ClassVar[tuple[str, ...]] = ("corpus",)
    gives: ClassVar[str] = "corpus"

    threshold: float = Field(default=0.8, ge=0.3, le=1.0)
    """Jaccard similarity from which two documents are near-duplicates."""
    shingle: int = Field(default=5, ge=1, le=32)
    """Consecutive words (or characters) of one shingle."""
    units: Units = "auto"
    """What shingles are made of: "words" between white space, "characters", or "auto": words, but each character of scripts
    that put no spaces between them (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and the like)."""
    keep: Keep = "first"
    """Which of similar documents stays: "first" of the corpus, or the "longest" (the first of equals)."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Time from bytes; the share that stays is assumed."""
        return cost.filtering("minhash", sketch, hardware)

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Find what is similar, drop what one that stays stands for."""
        from shoestring.data import engine

        more: dict[str, Any] = {}

        def duplicates(source: Path) -> dict[int, Drop]:
            found = find(engine.read(source), self.threshold, self.shingle, self.units, self.keep)
            bands, rows = bands_and_rows(self.threshold)
            counts = {"candidates": found.candidates, "one_shingle": found.short}
            more["minhash"] = {"bands": bands, "rows": rows, **counts, "precision": 1.0, "precision_of": PRECISION}
            if found.short > MANY * len(found.orders):
                watch.note(
                    f"{self.name}: {found.short:,} of {len(found.orders):,} documents have one shingle or none: up to "
                    f"{self.shingle} words, so that only the same words make them duplicates; a smaller `shingle`, or "
                    "`units: characters`, compares more of them"
                )
            return drops(found, source)

        return documents.keep(state, task, watch, self.name, duplicates, more)


def drops(found: Found, source: Path) -> dict[int, Drop]:
    """The documents that go, each with the id of the one that stays for it."""
    gone = np.flatnonzero(found.kept != found.orders)
    pairs = list(zip(found.orders[gone].tolist(), found.kept[gone].tolist(), strict=True))
    names = documents.ids(source, {kept for _, kept in pairs})
    return {order: Drop("near-duplicate", f"of {names[kept]}") for order, kept in pairs}


def _sets(engine: Any, table: Any, text: Any, shingle: int) -> pa.Table:
    shingles = engine.column(lambda w: shingle_sets(w, shingle), [engine.unit_hashes(text)], pa.large_list(pa.uint64()))
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
