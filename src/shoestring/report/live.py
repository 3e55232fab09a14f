"""What a person sees while a recipe runs: a line per step, notes that stay, and a bar with the time left.

Everything goes to standard error, so that standard output stays free for `--json`. Without a terminal the status is
printed as a line every ten seconds.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape

from shoestring.measure import human
from shoestring.progress import Bar
from shoestring.recipe import Forecast, Row, Step

_QUIET_SECONDS = 10.0


class Live:
    """A `recipe.Observer` for people. Close it, or use it in a `with` block."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bar: Bar | None = None
        self._said = time.monotonic()  # what ends within seconds says nothing on its way

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def note(self, text: str) -> None:
        """A line that stays."""
        self.console.print(f"   [dim]{escape(text)}[/dim]", soft_wrap=True)

    def progress(self, text: str, done: float | None = None) -> None:
        """A passing status, with the share of the step that is done."""
        if self.console.is_terminal:
            self._show(text, done)
        elif time.monotonic() - self._said > _QUIET_SECONDS:
            self._said = time.monotonic()
            share = "" if done is None or f"{done:.0%}" in text else f" · {done:.0%}"
            self.console.print(f"   {escape(text)}{share}", soft_wrap=True)

    def begin(self, step: Step, number: int, of: int, forecast: Forecast) -> None:
        """A step starts: what it is, and how long it should take."""
        self.close()
        self.console.print(f"[bold]{number}/{of} {escape(step.name)}[/bold]  predicted {forecast.usage.seconds}", soft_wrap=True)
        self._said = time.monotonic()
        if self.console.is_terminal:
            self._show("working", None)

    def end(self, row: Row) -> None:
        """A step has ended: what it took, and what it made."""
        self.close()
        parts = ["from the store, it took" if row.reused else "took", str(row.measured.seconds)]
        parts.append(f"· {row.disk} on disk")
        if row.numbers is not None and "bits_per_byte" in row.numbers:
            parts.append(f"· {row.numbers['bits_per_byte']['value']:.4f} bits per byte")
        if row.measured.energy.value is not None:
            parts.append(f"· {human(row.measured.energy.value, 'J')} {row.measured.energy.kind}")
        self.console.print(f"   {' '.join(parts)}", soft_wrap=True)

    def close(self) -> None:
        """Take the passing status away, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, text: str, done: float | None) -> None:
        if self._bar is None:
            self._bar = Bar(self.console)
            self._bar.start()
        self._bar(text, done)
