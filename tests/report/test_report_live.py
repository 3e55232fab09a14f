"""What is shown while work goes on: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from shoestring.report import live


def _console(terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=100, highlight=False, color_system=None), stream


def test_a_terminal_sees_a_bar_that_moves_and_goes() -> None:
    console, stream = _console(terminal=True)
    with live.Live(console) as shown:
        shown.progress("reading [3]", 0.25)
        shown._bar._bars.refresh()  # type: ignore[union-attr]
        assert "reading [3]" in stream.getvalue()
        assert "25%" in stream.getvalue()
        shown.note("a note that stays")
    assert "a note that stays" in stream.getvalue()
    assert shown._bar is None


def test_elsewhere_a_line_now_and_then_says_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    console, stream = _console(terminal=False)
    clock = iter([100.0, 101.0, 111.0, 111.0, 112.0, 130.0, 130.0])
    monkeypatch.setattr(live.time, "monotonic", lambda: next(clock))
    shown = live.Live(console)
    for text, done in (("one", 0.4), ("two", 0.5), ("three", 0.6), ("four 70%", 0.7)):
        shown.progress(text, done)
    assert stream.getvalue().splitlines() == ["   two · 50%", "   four 70%"]
