"""Gopher's quality and repetition rules (Rae et al., arXiv 2112.11446, appendix A1.1, table A1), vectorised over Arrow arrays.

A word is what white space separates. Repeated n-grams follow the paper: characters of words that lie in a later occurrence of an
n-gram are counted once, over all characters of words. N-grams are compared exactly, by dense numbers refined word by word.

D documents, W words of all documents, L lines.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoestring.choice import Choice

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = ("•", "-", "*", "‣", "–", "·")
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
"""Largest share of characters in the most frequent n-gram."""
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Largest share of characters in repeated n-grams."""
REPEATED = {"lines": (0.30, 0.20), "paragraphs": (0.30, 0.20)}
"""Largest share of repeated ones among all, and of their characters."""
SLICE = 1 << 19
"""Bytes of text judged at a time: tables of its words and n-grams stay in the processor's cache."""
RULES = (
    "words below 50",
    "words above 100000",
    "mean word length outside 3 to 10",
    "symbols to words above 0.1",
    "lines that start with a bullet above 0.9",
    "lines that end with an ellipsis above 0.3",
    "words with a letter below 0.8",
    "stop words below 2",
    *(
        f"{part} above {limit:g}"
        for what, limits in REPEATED.items()
        for part, limit in zip((f"repeated {what}", f"characters in repeated {what}"), limits)
    ),
    *(f"top {n}-gram above {limit:g}" for n, limit in TOP.items()),
    *(f"repeated {n}-grams above {limit:g}" for n, limit in DUPLICATE.items()),
)
"""What a document can fail, in the order in which it is tested: the first one is its reason."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules by name, and what gives for each text the number of the first rule that it fails, -1 when it fails none."""

    names: tuple[str, ...]
    first_failed: Callable[[pa.Array], pa.Array]


def first_failed(texts: pa.Array) -> pa.Array:
    """The first rule that each text fails, as an index into `RULES`; -1 for a text that passes: int64 (D,)."""
    texts = texts.cast(pa.large_string())
    ends = np.cumsum(pc.binary_length(texts).to_numpy(zero_copy_only=False))
    cuts = np.searchsorted(ends, np.arange(SLICE, ends[-1] if len(ends) else 0, SLICE), side="right")
    borders = np.unique(np.concatenate(([0], cuts, [len(texts)])))
    parts = [_first_failed(texts.slice(start, end - start)) for start, end in pairwise(borders.tolist())]
    return pa.array(np.concatenate([*parts, np.zeros(0, np.int64)]))


GOPHER = Choice(
    "gopher",
    RuleSet(RULES, first_failed),
    "Gopher's counts of words, symbols and repetition",
    row="D2",
    paper="2112.11446",
    saves=("computation", "data", "storage"),
)


def measure(texts: pa.Array) -> list[np.ndarray]:
    """Whether each text fails each rule of `RULES`: booleans (D,) for each."""
    word, line = words(texts), lines(texts)
    failed = _quality(texts, word, line)
    for found, limits in zip((line, paragraphs(texts)), REPEATED.values(), strict=True):
        failed += [share > limit for share, limit in zip(duplicate_shares(found), limits, strict=True)]
    shares = ngram_shares(word)
    return failed + [shares[n] > limit for n, limit in (TOP | DUPLICATE).items()]


@dataclass(frozen=True, slots=True)
class Parts:
    """Pieces of documents (words, lines or paragraphs) as flat arrays.

    Attributes:
        owner: document of each piece, (W,), ascending.
        code: the same number for the same text, (W,).
        length: characters, (W,).
        distinct: the text of each code.
        documents: D.
    """

    owner: np.ndarray
    code: np.ndarray
    length: np.ndarray
    distinct: pa.Array
    documents: int

    def total(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Pieces of each document, or the sum of their whole-number weights, (D,)."""
        borders = np.searchsorted(self.owner, np.arange(self.documents + 1))
        return np.diff(borders if weights is None else np.concatenate(([0], np.cumsum(weights, dtype=np.int64)))[borders])

    def where(self, distinct: np.ndarray) -> np.ndarray:
        """Pieces of each document whose text has a property, given for each code, (D,)."""
        return self.total(distinct[self.code])


def words(texts: pa.Array) -> Parts:
    """What white space separates."""
    return _parts(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)))


def lines(texts: pa.Array) -> Parts:
    """Lines that are not blank, trimmed."""
    return _parts(pc.split_pattern(texts, "\n"), trim=True)


def paragraphs(texts: pa.Array) -> Parts:
    """What one or more blank lines separate, trimmed."""
    return _parts(pc.split_pattern_regex(texts, r"\n[ \t\r]*\n\s*"), trim=True)


def duplicate_shares(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Share of pieces that came before in their document, and the share of their characters, (D,) each."""
    again = _seen(_dense(parts.owner * (len(parts.distinct) + 1) + parts.code))
    characters = _share(parts.total(parts.length * again), parts.total(parts.length))
    return _share(parts.total(again), parts.total()), characters


def ngram_shares(parts: Parts) -> dict[int, np.ndarray]:
    """For n in `TOP` the share of characters in the most frequent n-gram, in `DUPLICATE` of those in repeated ones: (D,) each.

    An n-gram gets a dense number from the number of its first n-1 words and its last word. For n > 4 only n-grams whose first
    part occurs again need one: all others are unique, and there are few of them left.
    """
    length = parts.length
    total = parts.total(length)
    starts = np.arange(len(parts.owner))  # positions of n-grams that are still of interest
    # Documents and words of one slice are few, so that (document, word, word) fits in 64 bits.
    number = parts.owner * (len(parts.distinct) + 1) + parts.code
    ends = np.concatenate((np.cumsum(length), [0]))
    shares = {}
    for n in range(2, max(DUPLICATE) + 1):
        inside = starts + n - 1 < len(parts.owner)
        starts, number = starts[inside], number[inside]
        inside = parts.owner[starts] == parts.owner[starts + n - 1]
        starts, number = starts[inside], number[inside]
        number = _dense(number * (len(parts.distinct) + 1) + parts.code[starts + n - 1])
        if n in TOP:
            shares[n] = _share(_top(parts, starts, number, ends[starts + n - 1] - ends[starts - 1], n), total)
        if n in DUPLICATE:
            again = starts[_seen(number)]
            covered = np.zeros(len(parts.owner) + 1, dtype=np.int64)
            covered[again] += 1  # an n-gram starts once at a place, so no index comes twice
            covered[again + n] -= 1
            shares[n] = _share(parts.total(length * (np.cumsum(covered[:-1]) > 0)), total)
        # Longer n-grams can only repeat where this one does.
        repeats = np.bincount(number)[number] > 1 if len(number) else np.zeros(0, bool)
        starts, number = starts[repeats], number[repeats]
    return shares


def _top(parts: Parts, starts: np.ndarray, number: np.ndarray, size: np.ndarray, n: int) -> np.ndarray:
    """Characters in the most frequent n-gram of each document (the one with most characters among equals), at least twice."""
    best = np.zeros(parts.documents)
    if len(number) == 0:
        return best
    count = np.bincount(number)
    _, first = np.unique(number, return_index=True)
    owner, size = parts.owner[starts[first]], size[first]
    most = np.zeros(parts.documents, dtype=np.int64)
    np.maximum.at(most, owner, count)
    chosen = (count == most[owner]) & (count > 1)
    np.maximum.at(best, owner[chosen], (count * size)[chosen].astype(np.float64))
    return best


def _first_failed(texts: pa.Array) -> np.ndarray:
    failed = measure(texts)
    result = np.full(len(texts), -1, dtype=np.int64)
    for index in reversed(range(len(failed))):
        result[failed[index]] = index
    return result


def _quality(texts: pa.Array, word: Parts, line: Parts) -> list[np.ndarray]:
    count = word.total()
    mean = _share(word.total(word.length), count)
    hashes = pc.count_substring(texts, "#").to_numpy(zero_copy_only=False)
    dots = (pc.count_substring(texts, "...").to_numpy(zero_copy_only=False)
            + pc.count_substring(texts, "…").to_numpy(zero_copy_only=False))  # fmt: skip
    bullet = np.logical_or.reduce([_flags(pc.starts_with(line.distinct, mark)) for mark in BULLETS])
    ellipsis = np.logical_or.reduce([_flags(pc.ends_with(line.distinct, mark)) for mark in ("...", "…")])
    letter = _flags(pc.match_substring_regex(word.distinct, r"\p{L}"))
    bare = pc.utf8_lower(pc.utf8_trim(word.distinct, string.punctuation))
    which = np.asarray(pc.fill_null(pc.index_in(bare, value_set=pa.array(STOP_WORDS, bare.type)), -1))[word.code]
    present = np.zeros((len(texts), len(STOP_WORDS)), dtype=bool)
    present[word.owner[which >= 0], which[which >= 0]] = True
    return [
        count < 50,
        count > 100_000,
        (mean < 3) | (mean > 10),
        (_share(hashes, count) > 0.1) | (_share(dots, count) > 0.1),
        _share(line.where(bullet), line.total()) > 0.9,
        _share(line.where(ellipsis), line.total()) > 0.3,
        _share(word.where(letter), count) < 0.8,
        present.sum(axis=1) < 2,
    ]


def _parts(split: pa.Array, trim: bool = False) -> Parts:
    offsets = np.asarray(split.offsets, dtype=np.int64)
    owner = np.repeat(np.arange(len(split)), np.diff(offsets))
    values = split.values.slice(offsets[0], offsets[-1] - offsets[0])
    if trim:
        values = pc.utf8_trim_whitespace(values)
    filled = _flags(pc.greater(pc.binary_length(values), 0))
    if not filled.all():
        owner, values = owner[filled], values.filter(pa.array(filled))
    coded = values.dictionary_encode()
    code = np.asarray(coded.indices, dtype=np.int64)
    length = np.asarray(pc.utf8_length(coded.dictionary), dtype=np.int64)
    return Parts(owner, code, length[code] if len(code) else np.zeros(0, np.int64), coded.dictionary, len(split))


def _dense(keys: np.ndarray) -> np.ndarray:
    """The same small number for the same key, numbered by first appearance."""
    return np.asarray(pa.array(keys, pa.int64()).dictionary_encode().indices, dtype=np.int64)


def _seen(number: np.ndarray) -> np.ndarray:
    """True where a number (by first appearance, as `_dense` gives them) came before."""
    if len(number) == 0:
        return np.zeros(0, dtype=bool)
    highest = np.maximum.accumulate(number)
    return np.concatenate(([False], number[1:] <= highest[:-1]))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(part, dtype=np.float64) / np.maximum(whole, 1)


def _flags(array: pa.Array) -> np.ndarray:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)
