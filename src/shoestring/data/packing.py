"""Documents into context windows: plain windows over the stream, or whole documents by best-fit decreasing (arXiv 2404.10830).

Plain windows cut documents wherever a window is full and read on into the next one. Best fit keeps documents whole: pieces in
order of falling length, each in the fullest window that still has room; only documents longer than a window are cut. A document
then sees no other one, and few positions stay empty.

A window of best fit is a list of spans of the stream. A span (start, length) stands for `length` predictions: its inputs are
the tokens from start-1 on, its targets those from start on. A document's first token is thus predicted from the end token before
it, as in the plain stream, and every token of every document is a target exactly once.

S spans, N windows, B windows of one batch, T predictions of one window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from shoestring.choice import Choice, Table
from shoestring.data.batch import IGNORED


class Pieces(NamedTuple):
    """Parts of documents in windows: window, document and positions of each, (S,)."""

    windows: np.ndarray
    documents: np.ndarray
    lengths: np.ndarray


class Packing(Protocol):
    """Windows of `context` predictions over a stream of documents."""

    def __len__(self) -> int:
        """Windows of one epoch."""

    def rows(self, windows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Inputs and targets of some windows, int64 (B, T); where documents are kept apart their numbers in the row too."""

    def pieces(self) -> Pieces:
        """Which documents fill the windows."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Windows over the joined documents, wherever they end; the rest at the stream's end is left out."""

    tokens: np.ndarray
    offsets: np.ndarray
    context: int

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.context)

    def rows(self, windows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Inputs and targets, (B, T)."""
        tokens_BT = np.empty((len(windows), self.context), dtype=np.int64)
        targets_BT = np.empty_like(tokens_BT)
        for row, start in enumerate((windows * self.context).tolist()):
            piece = self.tokens[start : start + self.context + 1]
            tokens_BT[row], targets_BT[row] = piece[:-1], piece[1:]
        return tokens_BT, targets_BT

    def pieces(self) -> Pieces:
        """Documents, cut where windows begin."""
        total = len(self) * self.context
        starts = np.union1d(self.offsets[self.offsets < total], np.arange(0, total, self.context)).astype(np.int64)
        documents = np.searchsorted(self.offsets, starts, side="right") - 1
        return Pieces(starts // self.context, documents, np.diff(starts, append=total))


class BestFit:
    """Whole documents together; those longer than the context are cut; what stays empty is padding that does not count."""

    def __init__(self, tokens: np.ndarray, offsets: np.ndarray, context: int) -> None:
        self.tokens, self.offsets, self.context = tokens, offsets, context
        self.windows = best_fit(offsets, context)

    def __len__(self) -> int:
        return len(self.windows)

    def rows(self, windows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Inputs, targets and documents, (B, T); -1 is the document of padding."""
        end, packed = int(self.tokens[self.offsets[1] - 1]), self.windows
        tokens_BT = np.full((len(windows), self.context), end, dtype=np.int64)
        targets_BT = np.full_like(tokens_BT, IGNORED)
        documents_BT = np.full_like(tokens_BT, -1)
        for row, window in enumerate(windows.tolist()):
            place = 0
            for number, span in enumerate(range(packed.first[window], packed.first[window + 1])):
                start, length = int(packed.starts[span]), int(packed.lengths[span])
                targets_BT[row, place : place + length] = self.tokens[start : start + length]
                tokens_BT[row, place] = self.tokens[start - 1] if start else end
                tokens_BT[row, place + 1 : place + length] = self.tokens[start : start + length - 1]
                documents_BT[row, place : place + length] = number
                place += length
        return tokens_BT, targets_BT, documents_BT

    def pieces(self) -> Pieces:
        """Its spans."""
        numbers = np.repeat(np.arange(len(self)), np.diff(self.windows.first))
        return Pieces(numbers, self.windows.documents, self.windows.lengths)


STREAM = Choice("stream", Stream, "windows over the joined documents, wherever they end", row="D8")
BESTFIT = Choice(
    "bestfit", BestFit, "whole documents by best fit; only long ones are cut", row="D8", paper="2404.10830", saves=("data",)
)
PACKINGS: Table[Callable[[np.ndarray, np.ndarray, int], Packing]] = Table("Loader.packing", STREAM, BESTFIT)
"""Each makes windows of the stream, the start of each document with the total as last entry, and the context."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Spans by window: window i has the spans from `first[i]` to `first[i + 1]`."""

    starts: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    """Document of each span, (S,)."""
    first: np.ndarray
    """(N + 1,)."""

    def __len__(self) -> int:
        return len(self.first) - 1


def best_fit(offsets: np.ndarray, context: int) -> Windows:
    """Pack documents: cut those that are longer than the context, then each piece, longest first, in the fullest window it fits.

    Args:
        offsets: start of each document, with the total as the last entry.
    """
    starts, lengths, documents = _cut(np.asarray(offsets, dtype=np.int64), context)
    order = np.argsort(-lengths, kind="stable")
    window = _place(lengths[order], context)
    # Within a window: longest first; windows in the order in which they were opened.
    sorting = np.argsort(window, kind="stable")
    chosen = order[sorting]
    count = int(window.max()) + 1 if len(window) else 0
    first = np.searchsorted(window[sorting], np.arange(count + 1))
    return Windows(starts[chosen], lengths[chosen], documents[chosen], first)


def padding_share(windows: Windows, context: int) -> float:
    """Share of positions that no document fills."""
    return 1.0 - float(windows.lengths.sum()) / max(1, len(windows) * context)


def _cut(offsets: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pieces of at most `context` tokens, in the order of the stream: starts, lengths, documents."""
    sizes = np.diff(offsets)
    counts = -(-sizes // context)
    documents = np.repeat(np.arange(len(sizes)), counts)
    place = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = offsets[:-1][documents] + place * context
    return starts, np.minimum(context, offsets[1:][documents] - starts), documents


def _place(lengths: np.ndarray, context: int) -> np.ndarray:
    """The window of each piece, lengths descending: the one with the least room that is enough, else a new one.

    `open_` has bit r set when a window with room r is open, so that the fullest fitting one is its lowest bit above the length.
    """
    window = np.empty(len(lengths), dtype=np.int64)
    whole = int(np.count_nonzero(lengths == context))
    window[:whole] = np.arange(whole)
    by_room: list[list[int]] = [[] for _ in range(context + 1)]
    open_, count = 0, whole
    for index, length in enumerate(lengths[whole:].tolist(), whole):
        above = open_ >> length
        if above:
            room = length + (above & -above).bit_length() - 1
            chosen = by_room[room].pop()
            if not by_room[room]:
                open_ &= ~(1 << room)
        else:
            room, chosen, count = context, count, count + 1
        window[index] = chosen
        left = room - length
        if left:
            by_room[left].append(chosen)
            open_ |= 1 << left
    return window
