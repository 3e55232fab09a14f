"""What a step used before it was stopped: the meter's sum, kept beside its restart points, so that a step that goes on counts it.

A kill loses what was used since the last time the sum was written, `EVERY` seconds at the most while the step says how far it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoestring.artifact import write_whole
from shoestring.errors import DiskFull, FileError
from shoestring.files import read_object, to_json
from shoestring.measure import Kind, Meter, Usage, total
from shoestring.progress import Progress

FILE = "usage.json"
EVERY = 5.0


def resumable(scratch: Path) -> bool:
    """Whether a step has left something to go on from."""
    return any(path.is_file() and path != scratch / FILE for path in scratch.rglob("*"))


class Spent:
    """The use of one step over all processes that worked on it."""

    def __init__(self, scratch: Path, meter: Meter) -> None:
        self.file, self.meter = scratch / FILE, meter
        self.resumed = resumable(scratch)
        self.before = self._read() if self.resumed else None
        self._written = time.monotonic()

    @property
    def usage(self) -> Usage:
        """What was used up to now, before the step was stopped included."""
        now = self.meter.usage
        if self.before is not None:
            both = total([self.before, now])
            return both.with_(seconds=both.seconds.recast(Kind.MEASURED, "wall clock, with that of before it was stopped"))
        if self.resumed:
            lost = "since the restart; the time before the kill is not in it"
            return now.with_(seconds=now.seconds.recast(Kind.MEASURED, lost))
        return now

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the sum when the block fails or is interrupted."""
        try:
            yield
        except BaseException:
            self._keep()
            raise

    def watching(self, progress: Progress) -> Progress:
        """The same display, which keeps the sum from time to time."""

        def shown(text: str, done: float | None = None) -> None:
            progress(text, done)
            if time.monotonic() - self._written >= EVERY:
                self._keep()

        return shown

    def _keep(self) -> None:
        self._written = time.monotonic()
        try:
            write_whole(self.file, to_json(self.usage.to_json()))
        except DiskFull:  # the step itself will say so where it matters
            pass

    def _read(self) -> Usage | None:
        try:
            return Usage.from_json(read_object(self.file))
        except (FileError, ValueError, TypeError, KeyError, AttributeError):
            return None
