"""Text as it comes, of which no part of a stop string slips out."""

from __future__ import annotations

from collections.abc import Sequence


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
