"""Documents into context windows: plain windows over the stream, or whole documents by best-fit decreasing (arXiv 2404.10830).

A window is a list of spans of the stream. A span (start, length) stands for `length` predictions: its inputs are the tokens
from start-1 on, its targets those from start on. A document's first token is thus predicted from the end token before it, as
in the plain stream, and every token of every document is a target exactly once.

S spans, N windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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


def stream(tokens: int, context: int) -> int:
    """Windows of `context` predictions in a plain stream; the rest at its end is left out."""
    return max(0, (tokens - 1) // context)


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
