"""How long work says how far it is: one interface for every room, and a bar with the time left where a person looks on.

A function that may take more than a few seconds has a parameter `progress: Progress | None = None` and calls
`progress(text, done)`: a text that replaces the last one, and the share done from 0 to 1 where that is known. The command
line passes its own display on; a call from Python shows a bar by itself when standard error is a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """A passing status, and the share of the work that is done."""

    def __call__(self, text: str, done: float | None = None) -> None:
        """Show `text` in place of the last one; `done` from 0 to 1 moves a bar."""


def silent(text: str, done: float | None = None) -> None:
    """Show nothing."""


def under(name: str, progress: Progress) -> Progress:
    """The same display, each text after `name`: for one of several pieces of work."""
    return lambda text, done=None: progress(f"{name}: {text}", done)


class Bar:
    """A line on the terminal: what is going on, a bar, and the time left once it can be told from the pace so far."""

    def __init__(self, console: object | None = None) -> None:
        """`console`: a `rich.console.Console`; one on standard error when not given."""
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        place = console if isinstance(console, Console) else Console(stderr=True, highlight=False)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
        )
        self._bars = RichProgress(*columns, console=place, transient=True)
        self._task = self._bars.add_task("working", total=None)
        self._done = 0.0

    def __call__(self, text: str, done: float | None = None) -> None:
        """As `Progress`."""
        if done is not None and done < self._done:  # another piece of work has begun
            self._bars.reset(self._task)
        self._done = self._done if done is None else done
        self._bars.update(self._task, description=text, total=None if done is None else 1.0, completed=done or 0.0)

    def start(self) -> None:
        """Show it."""
        self._bars.start()

    def stop(self) -> None:
        """Take it away."""
        self._bars.stop()


@contextmanager
def showing(given: Progress | None) -> Iterator[Progress]:
    """The display that the caller gave, or a bar of our own where standard error is a terminal, or none."""
    if given is not None:
        yield given
    elif not sys.stderr.isatty():
        yield silent
    else:
        bar = Bar()
        bar.start()
        try:
            yield bar
        finally:
            bar.stop()
