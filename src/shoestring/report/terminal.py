"""The ledger as a table for the terminal, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoestring.measure import Quantity, total
from shoestring.recipe import ledger
from shoestring.recipe.ledger import Row
from shoestring.report.figures import MARKS, quality, ratio_text, text

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 100


def table(run: Path | Sequence[Row]) -> Table:
    """A run's ledger as a table: time predicted and measured, peak memory, size, bits per byte, energy, money.

    The automatic evaluations stand together in one line; the quality that they measured stands with the step before.

    Args:
        run: a run's folder, or the rows of its ledger.

    Raises:
        FileError: the ledger is missing or damaged.
    """
    from rich.table import Table
    from rich.text import Text

    rows = ledger.read(run / "ledger.jsonl") if isinstance(run, Path) else list(run)
    found = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_footer=bool(rows))
    whole = _line("whole run", rows) if rows else [""] * 9
    names = ("step", "predicted", "time", "ratio", "memory", "on disk", "bits/byte", "energy", "money")
    for name, footer in zip(names, whole):
        justify: Literal["left", "right"] = "left" if name == "step" else "right"
        found.add_column(name, footer=footer, justify=justify, no_wrap=name != "step", footer_style="bold", overflow="fold")
    for row in rows:
        if not row.automatic:
            label = Text(row.step)
            if row.reused:
                label.append(" (reused)", style="dim")
            found.add_row(label, *_line(row.step, [row])[1:])
    automatic = [row for row in rows if row.automatic]
    if automatic:
        found.add_row(f"evaluations ({len(automatic)})", *_line("", automatic)[1:], style="dim")
    return found


def print_table(run: Path | Sequence[Row]) -> None:
    """Print the ledger of a run on standard output, with what its marks mean."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    rows = ledger.read(run / "ledger.jsonl") if isinstance(run, Path) else list(run)
    console.print(table(rows))
    for line in changes(rows):
        console.print(line, markup=False)
    console.print("[dim]e estimated, a assumed; everything else was measured or counted[/dim]")


def changes(rows: Sequence[Row]) -> list[str]:
    """A line for each figure of quality that a step changed: after minus before, paired, which is far sharper."""
    found = []
    for row in rows:
        for name, figure in (row.difference or {}).items():
            low, high = figure.interval or (figure.value, figure.value)
            clear = "" if low is None or high is None or not low <= 0 <= high else ", not clear"
            found.append(f"  {row.step:16} {name:16} {figure.value:+.4f}  95 %: {low:+.4f} to {high:+.4f}{clear}")
    return ["change of quality, paired with the step before, within these weights (one seed):", *found] if found else []


def _line(name: str, rows: Sequence[Row]) -> list[str]:
    expected, used = total(row.predicted for row in rows), total(row.measured for row in rows)
    ratio = ""
    if expected.seconds.value and used.seconds.value is not None:
        ratio = ratio_text(used.seconds.value / expected.seconds.value)
    known = [quality(row) for row in rows if row.after and quality(row).value is not None]
    size = sum(row.disk.value or 0.0 for row in rows)
    return [
        name,
        text(expected.seconds),
        text(used.seconds),
        ratio,
        _short(used.peak_memory),
        text(Quantity(size, "B", rows[0].disk.kind)),
        text(known[-1], "bits_per_byte") if known else "",
        _short(used.energy),
        _short(used.money),
    ]


def _short(quantity: Quantity) -> str:
    """A figure with the mark of its kind when it is weaker than measured."""
    if quantity.value is None:
        return "?"
    mark = MARKS[quantity.kind]
    return text(quantity) + (f" {mark}" if mark in "ea" else "")
