"""The clock of a run: time spent, the pace of steps, and how many more fit into a limit."""

from __future__ import annotations

import time

SETTLED = 8
"""Steps before a pace is trusted; the first two, which compile and warm up, never count."""
SPARE = 0.02
"""Share of the limit left unused when the end is brought forward."""


class Clock:
    """Counts seconds over all processes of a run, and this process's pace."""

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._start = time.perf_counter()
        self._ticks: list[float] = []

    @property
    def elapsed(self) -> float:
        """Seconds spent, those of killed processes up to their last restart point included."""
        return self._before + time.perf_counter() - self._start

    def tick(self) -> None:
        """A step has ended."""
        self._ticks.append(time.perf_counter())

    @property
    def pace(self) -> float | None:
        """Seconds per step over the newer half of this process's steps; None before the third."""
        ticks = self._ticks[1:]
        if len(ticks) < 2:
            return None
        recent = ticks[-max(21, len(ticks) // 2) :]
        return (recent[-1] - recent[0]) / (len(recent) - 1)

    def steps_left(self, planned: int, limit: float) -> int:
        """How many more steps to do when `planned` are: fewer when they would not end within `limit` seconds."""
        pace, elapsed = self.pace, self.elapsed
        if elapsed >= limit:
            return 0
        if pace is None or (len(self._ticks) < SETTLED and elapsed < limit / 4):
            return planned
        if elapsed + planned * pace <= limit:
            return planned
        fitting = int((limit * (1 - SPARE) - elapsed) / pace)
        return max(0, min(planned, fitting))
