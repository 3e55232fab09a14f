"""The meter: a context manager that measures what the block inside it used. Meters nest.

The device is synchronised before a clock is read, so that work in flight is counted where it belongs.
"""

from __future__ import annotations

import time
from types import TracebackType

from shoestring.measure.hardware import Hardware
from shoestring.measure.usage import Usage


class Meter:
    """Measures wall time, peak memory and energy; counts the FLOPs and bytes that it is told of.

    >>> with Meter(hardware) as meter:
    ...     train()
    ...     meter.count(flops=1e12)
    >>> meter.usage.seconds
    """

    # H7 (measure) completes this file: peak memory, energy sensors, nesting.

    def __init__(self, hardware: Hardware, parent: Meter | None = None) -> None:
        self.hardware = hardware
        self.parent = parent
        self.flops = 0.0
        self.communication = 0.0
        self._usage: Usage | None = None

    def count(self, flops: float = 0.0, communication: float = 0.0) -> None:
        """Tell the meter of operations done and of bytes sent between devices."""
        self.flops += flops
        self.communication += communication

    def __enter__(self) -> Meter:
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._seconds = time.perf_counter() - self._start

    @property
    def seconds(self) -> float:
        """Wall time since the block began, in seconds."""
        return time.perf_counter() - self._start

    @property
    def usage(self) -> Usage:
        """What the block used; only after it has ended."""
        raise NotImplementedError
