"""From tokens to text as they come: no character is ever cut in two, and no part of a stop string slips out."""

from __future__ import annotations

from collections.abc import Sequence

from shoestring.tokenizer import Tokenizer

BROKEN = "\ufffd"
"""What decoders put for bytes that are not, or not yet, UTF-8."""
WINDOW = 16
"""Tokens decoded again with each new one: enough for a character's four bytes and for marks that depend on neighbours."""


class TextStream:
    """Decodes an answer token by token. The pieces put together are the decoded answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """The text that this token completes; empty in the middle of a character."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        end = _whole(text)
        piece = text[self._shown : end]
        self._shown = max(self._shown, end)
        # In the middle of a character the window keeps its beginning, unless the answer is no UTF-8 at all.
        if len(self._window) > WINDOW and (end == len(text) or len(self._window) > 4 * WINDOW):
            self._window = self._window[-WINDOW // 2 :]
            self._shown = _whole(self._tokenizer.decode(self._window))
        return piece

    def flush(self) -> str:
        """What is left at the end of the answer: an unfinished character, as a replacement mark."""
        return self._tokenizer.decode(self._window)[self._shown :]


def _whole(text: str) -> int:
    """Length of a text without what may be an unfinished character at its end: up to three replacement marks."""
    return len(text) - min(3, len(text) - len(text.rstrip(BROKEN)))


class StopStrings:
    """Cuts a text at the first of some strings, however the pieces fall."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that is safe to show: before a stop string, and without an end that might become one."""
        if self.found:
            return ""
        self._held += piece
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            return self._held[: min(places)]
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def flush(self) -> str:
        """What was held back, at the end of the answer."""
        return "" if self.found else self._held

    def _overlap(self, stop: str) -> int:
        """Characters at the end of what is held that `stop` begins with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
