"""The figures of a ledger as a person reads them: predicted beside measured, each with its kind, text and exact value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoestring.measure import UNITS, Kind, Quantity, human, total, unknown
from shoestring.recipe.ledger import Row

COLUMNS = {
    "seconds": "Wall time",
    "bits_per_byte": "Bits per byte",
    "disk": "On disk",
    "peak_memory": "Peak memory",
    "flops": "Computation",
    "energy": "Energy",
    "carbon": "CO₂e",
    "money": "Money",
    "communication": "Communication",
}
"""The figures of a ledger row and what they are called, in the table's order."""

MARKS = {Kind.MEASURED: "m", Kind.COUNTED: "c", Kind.PREDICTED: "p", Kind.ESTIMATED: "e", Kind.ASSUMED: "a"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of one step.

    Attributes:
        step: the step's name, "total" for the sum.
        figure: its key in `COLUMNS`.
        ratio: measured / predicted, None when one is unknown or the prediction is 0.
        partial: whether the (predicted, measured) sum leaves out steps for which the figure is not known.
    """

    step: str
    figure: str
    predicted: Quantity
    measured: Quantity
    ratio: float | None
    partial: tuple[bool, bool] = (False, False)


def cells(row: Row) -> list[Cell]:
    """All figures of a ledger row, in the order of `COLUMNS`."""
    return [_cell(row.step, figure, *pair(row, figure)) for figure in COLUMNS]


def pair(row: Row, figure: str) -> tuple[Quantity, Quantity]:
    """The predicted and the measured side of one figure of a row."""
    if figure in UNITS:
        return getattr(row.predicted, figure), getattr(row.measured, figure)
    if figure == "disk":
        return row.predicted_disk, row.disk
    nothing = unknown("bit/B", "this step does not predict quality", Kind.PREDICTED)
    return (row.foreseen or {}).get("bits_per_byte") or nothing, quality(row)


def quality(row: Row) -> Quantity:
    """Bits per byte after a step that changed the model, or as an evaluation found it; else why there is none."""
    found = (row.numbers or {}).get("bits_per_byte")
    if row.after is None and isinstance(found, dict):
        return Quantity.from_json(found)
    return (row.after or {}).get("bits_per_byte") or unknown("bit/B", "no evaluation stands behind this step")


def totals(rows: Sequence[Row]) -> list[Cell]:
    """The sum over all steps; of peak memory the largest, of quality the last."""
    predicted, measured = total(row.predicted for row in rows), total(row.measured for row in rows)
    known = [quality(row) for row in rows if quality(row).value is not None]
    nothing = unknown("bit/B", "no step has this figure")
    found = []
    for figure in COLUMNS:
        sides = [pair(row, figure) for row in rows]
        if figure in UNITS:
            both = getattr(predicted, figure), getattr(measured, figure)
        elif figure == "disk":
            both = _sum([side[0] for side in sides]), _sum([side[1] for side in sides])
        else:
            foreseen = [pair(row, figure)[0] for row in rows if row.after]
            both = foreseen[-1] if foreseen else nothing.recast(Kind.PREDICTED, nothing.method), known[-1] if known else nothing
        summed = figure not in ("bits_per_byte", "peak_memory")
        lacks = [summed and both[n].value is not None and any(side[n].value is None for side in sides) for n in (0, 1)]
        found.append(_cell("total", figure, *both, partial=(lacks[0], lacks[1])))
    return found


def text(quantity: Quantity, figure: str = "") -> str:
    """A figure for people: bits per byte with four decimals, everything else as `measure.human` says it."""
    if quantity.value is None:
        return "unknown"
    if figure == "bits_per_byte" or quantity.unit in ("bit/B", "bit/byte", "bits/byte", "bits per byte"):
        return f"{quantity.value:.4f}"
    if quantity.value == 0:
        return "$0" if quantity.unit == "USD" else f"0 {quantity.unit.replace('kgCO2e', 'g')}"
    if quantity.unit == "kgCO2e":
        return f"{quantity.value * 1e6:.3g} mg" if quantity.value < 1e-3 else human(quantity.value * 1000, "g")
    return human(quantity.value, quantity.unit)


def exact(quantity: Quantity) -> str:
    """The value with all its digits, empty when unknown: what a program reads from the page."""
    return "" if quantity.value is None else repr(quantity.value)


def reason(quantity: Quantity) -> str:
    """Where a figure comes from, in a line; for an unknown one, why."""
    if quantity.value is None:
        return f"unknown: {quantity.method or 'no reason given'}"
    message = f"{quantity.kind}: {quantity.method}" if quantity.method else str(quantity.kind)
    if quantity.interval is not None:
        low, high = (text(Quantity(bound, quantity.unit, quantity.kind)) for bound in quantity.interval)
        message += f" ({low} to {high})"
    return message


def ratio_text(ratio: float) -> str:
    """A ratio as people read it, in about three digits: ×1.04, ×17.2, ×190."""
    if not 1e-3 <= ratio < 1e4:
        return f"×{ratio:.1e}"
    digits = 3 if ratio < 0.1 else 2 if ratio < 10 else 1 if ratio < 100 else 0
    return f"×{ratio:.{digits}f}"


def _cell(step: str, figure: str, predicted: Quantity, measured: Quantity, partial: tuple[bool, bool] = (False, False)) -> Cell:
    both = predicted.value is not None and measured.value is not None and predicted.value != 0
    ratio = (measured.value or 0.0) / (predicted.value or 1.0) if both and not any(partial) else None
    return Cell(step, figure, predicted, measured, ratio, partial)


def _sum(figures: Sequence[Quantity]) -> Quantity:
    known = [figure for figure in figures if figure.value is not None]
    if not known:
        return unknown("B", "no step has this figure")
    result = known[0]
    for figure in known[1:]:
        result = result + figure.recast(result.kind, result.method)
    return result
