"""A composition as tables for a terminal, at most 100 columns wide: a column per figure, a row per factor."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING

from shoestring.measure import human

if TYPE_CHECKING:
    from rich.table import Table

    from shoestring.explore.composition import Composition
    from shoestring.explore.factorial import Combination, Effect
    from shoestring.explore.noise import Verdict

WIDTH = 100
MARKS = {"clear": "*", "within these weights": "°"}
"""Behind a ratio whose interval leaves out 1."""
LEGEND = "* differs from 1; ° differs within these weights: one seed each, ask for --repeats 3 for a clear verdict"
NAMES = {
    "seconds": "time",
    "flops": "computation",
    "energy": "energy",
    "money": "money",
    "disk": "on disk",
    "bits_per_byte": "bits/byte",
    "time_to_first_token": "first token",
    "tokens_per_second": "tokens/s",
}


def text(composition: Composition) -> str:
    """Both tables, and where their intervals come from, as plain text."""
    from rich.console import Console

    page = StringIO()
    console = Console(width=WIDTH, highlight=False, color_system=None, file=page)
    console.print(combination_table(composition))
    if len(composition.factors) > 1:
        console.print()
        console.print(interaction_table(composition))
    console.print()
    verdicts = {c.verdict for c in composition.combinations} | {e.verdict for e in composition.effects}
    if verdicts & MARKS.keys():
        console.print(LEGEND, soft_wrap=True, markup=False)
    for method, figures in _by_method(composition.combinations).items():
        console.print(f"{', '.join(figures)}: {method}", soft_wrap=True, markup=False)
    for figure, reason in composition.missing.items():
        console.print(f"{NAMES.get(figure, figure)} left out: {reason}", soft_wrap=True, markup=False)
    shared = f"{composition.steps} steps share {composition.distinct} artifacts: {composition.computed} were computed now"
    console.print(f"{shared}, {composition.reused} came from the store", soft_wrap=True, markup=False)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def combination_table(composition: Composition) -> Table:
    """Gain of each factor alone, their product, the measured combination, and one over the other."""
    found = composition.combinations
    table = _table("", [NAMES.get(c.figure, c.figure) for c in found])
    table.add_row("with none of them", *(_value(c) for c in found))
    for name in composition.factors:
        table.add_row(f"{name} alone", *(_ratio(c.gains[name]) for c in found))
    table.add_row("product of these", *(_ratio(c.product) for c in found), end_section=True)
    table.add_row("measured together", *(_ratio(c.measured) for c in found))
    table.add_row("measured / product", *(_ratio(c.interaction) for c in found))
    table.add_row("  95 % interval", *("too wide" if c.verdict == "too wide" else _interval(c.interval) for c in found))
    table.add_row("  differs from 1", *(_differs(c.verdict) for c in found))
    table.add_row("measured / sum", *("" if c.additive is None else _ratio(c.additive) for c in found))
    return table


def interaction_table(composition: Composition) -> Table:
    """The two-factor interactions as contrasts over the whole factorial, marked where 95 % leaves out 1."""
    figures = list(dict.fromkeys(effect.figure for effect in composition.effects))
    table = _table("interaction of two", [NAMES.get(figure, figure) for figure in figures])
    by_place: dict[tuple[tuple[str, ...], str], Effect] = {(e.factors, e.figure): e for e in composition.effects}
    for factors in dict.fromkeys(effect.factors for effect in composition.effects if len(effect.factors) == 2):
        cells = [by_place[factors, figure] for figure in figures]
        table.add_row(" × ".join(factors), *(_ratio(cell.ratio) + MARKS.get(cell.verdict, "") for cell in cells))
    return table


def _table(title: str, columns: Iterable[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(title, overflow="fold", max_width=24)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _value(combination: Combination) -> str:
    if combination.figure == "bits_per_byte":
        return f"{combination.baseline:.4f}"
    return human(combination.baseline, combination.unit)


def _ratio(ratio: float) -> str:
    return f"×{ratio:.3f}" if 0.01 <= ratio < 1000 else f"×{ratio:.2g}"


def _interval(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "none"
    low, high = interval
    digits = 2 if high - low > 0.02 else 3 if high - low > 0.004 else 4
    return "exact" if high - low < 1e-9 else f"{low:.{digits}f}–{high:.{digits}f}"


def _differs(verdict: Verdict) -> str:
    words = {"clear": "yes*", "within these weights": "one seed°", "not clear": "not clear", "exact": "exact"}
    return words.get(verdict, "unknown")


def _by_method(found: Iterable[Combination]) -> dict[str, list[str]]:
    methods: dict[str, list[str]] = {}
    for combination in found:
        methods.setdefault(combination.method, []).append(NAMES.get(combination.figure, combination.figure))
    return methods
