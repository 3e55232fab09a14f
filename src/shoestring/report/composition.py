"""The composition's part of a page, from `compose.json`: do the gains of a factorial's techniques multiply?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from shoestring.measure import Kind, Quantity
from shoestring.report.figures import COLUMNS, exact, ratio_text, reason, text
from shoestring.report.sections import Grid, Value


def composition(compose: dict[str, Any]) -> dict[str, Any]:
    """The tables of a factorial: combination against product of gains, all contrasts, all runs."""
    factors = [str(name) for name in compose.get("factors", [])]
    names = {"bits_per_byte": "Bits per byte", **COLUMNS}
    return {
        "lead": _composition_lead(compose, factors),
        "methods": _methods(compose.get("combinations", []), names),
        "combinations": _combinations(compose.get("combinations", []), factors, names),
        "effects": _effects(compose.get("effects", []), names),
        "cells": _cells(compose.get("cells", []), names),
        "missing": [(names.get(figure, figure), why) for figure, why in compose.get("missing", {}).items()],
    }


def _composition_lead(compose: dict[str, Any], factors: Sequence[str]) -> str:
    count, repeats = len(compose.get("cells", [])), compose.get("repeats", 1)
    seeds = f", {repeats} seeds each" if repeats > 1 else ""
    return (
        f"{count} runs, every combination of {', '.join(factors)}{seeds}. Their {compose.get('steps', 0)} steps share "
        f"{compose.get('distinct', 0)} artifacts: what runs have in common is made once. Interaction is the measured "
        "combination over the product of the gains that each has alone. Time, energy and money of steps add up rather than "
        "multiply: the last column compares with their sum. The evaluations behind the steps are not in them; on disk is the "
        "last model."
    )


def _methods(entries: Iterable[dict[str, Any]], names: dict[str, str]) -> dict[str, list[str]]:
    """Where the intervals come from, with the figures that share it."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(str(entry.get("method", "")), []).append(names.get(entry["figure"], entry["figure"]))
    return found


def _combinations(entries: Iterable[dict[str, Any]], factors: Sequence[str], names: dict[str, str]) -> Grid:
    gains = [f"{name} alone" for name in factors]
    columns = ["Figure", "Without", *gains, "Product", "Together", "Interaction", "95 %", "Against the sum"]
    rows = []
    for entry in entries:
        base = Quantity(entry["baseline"], entry["unit"], Kind.MEASURED)
        ratios = [*(entry["gains"][name] for name in factors), entry["product"], entry["measured"], entry["interaction"]]
        rows.append(
            [
                Value(names.get(entry["figure"], entry["figure"])),
                Value(text(base, entry["figure"]), exact(base)),
                *(Value(_ratio(ratio), repr(ratio)) for ratio in ratios),
                Value(_interval(entry.get("interval")), title=entry.get("method", "")),
                Value("" if entry.get("additive") is None else _ratio(entry["additive"])),
            ]
        )
    caption = "Each gain alone, their product, and the measured combination, as ratios to the run without any"
    return Grid(caption, columns, rows, set(columns[1:]))


def _effects(entries: Iterable[dict[str, Any]], names: dict[str, str]) -> Grid:
    rows = []
    for entry in entries:
        interval = entry.get("interval")
        rows.append(
            [
                Value(names.get(entry["figure"], entry["figure"])),
                Value(" × ".join(entry["factors"])),
                Value(_ratio(entry["ratio"]), repr(entry["ratio"])),
                Value(_interval(interval), title=entry.get("method", "")),
                Value(entry.get("verdict", "")),
            ]
        )
    columns = ["Figure", "Factors", "Ratio", "95 %", "Verdict"]
    return Grid("Contrasts of the full factorial, averaged over the other factors", columns, rows, {"Ratio", "95 %"})


def _cells(entries: Sequence[dict[str, Any]], names: dict[str, str]) -> Grid:
    figures = list(dict.fromkeys(figure for entry in entries for figure in entry["figures"]))
    rows = []
    for entry in entries:
        values = [Quantity.from_json(entry["figures"][figure]) if figure in entry["figures"] else None for figure in figures]
        name = " + ".join(entry["present"]) or "none of them"
        rows.append(
            [
                Value(name if not entry.get("repeat") else f"{name}, seed {entry['seed']}"),
                *(Value("") if q is None else Value(text(q, f), exact(q), reason(q)) for q, f in zip(values, figures)),
                Value(f"{entry.get('reused', 0)} of {entry.get('steps', 0)}"),
            ]
        )
    columns = ["Run", *(names.get(figure, figure) for figure in figures), "From the store"]
    return Grid("What each run used, steps from the store at the cost of when they were made", columns, rows, set(columns[1:]))


def _ratio(ratio: float) -> str:
    return f"×{ratio:.3f}" if 0.1 <= ratio < 10 else ratio_text(ratio)


def _interval(interval: Sequence[float] | None) -> str:
    if interval is None:
        return "none"
    low, high = interval
    digits = 3 if high - low > 0.004 else 4
    return "exact" if high - low < 1e-9 else f"{low:.{digits}f} to {high:.{digits}f}"
