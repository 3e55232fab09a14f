"""The clock of a run: time spent, the pace of steps, and how many more fit into a limit."""

from __future__ import annotations

import time

import torch

Mark = torch.cuda.Event | float
"""A moment in a device's work: an event of a GPU, a reading of the host's clock elsewhere."""

SETTLED = 8
"""Steps before a pace is trusted; the first two, which compile and warm up, never count."""
SPARE = 0.02
"""Share of the limit left unused when the end is brought forward."""


class Timer:
    """Tells when a device's work was done, by its own clock: the host launches ahead and reads late."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            torch.cuda.synchronize(device)
            self._origin = torch.cuda.Event(enable_timing=True)
            self._origin.record()
        self._start = time.perf_counter()

    def mark(self) -> Mark:
        """The moment when all work launched so far will be done."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self, mark: Mark) -> float:
        """Wait for that moment; it in seconds of the host's clock."""
        if isinstance(mark, float):
            return mark
        mark.synchronize()
        return self._start + self._origin.elapsed_time(mark) / 1e3


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

    def at(self, moment: float) -> float:
        """Seconds spent at a moment of the host's clock."""
        return self._before + moment - self._start

    def tick(self, moment: float) -> None:
        """A step has ended at that moment of the host's clock."""
        self._ticks.append(moment)

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
