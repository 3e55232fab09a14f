"""What a step did to a model: the difference of two evaluations on the same windows and the same task rows, paired.

A window that is hard for one model is hard for the other. Most of the error of either figure is that, and cancels in the
difference, whose interval is therefore far narrower than the two intervals side by side suggest.

    bits per byte   sum_w (after_w - before_w) / (U ln 2), error of a ratio over windows, Student's t
    shares          (c - b) / n of n rows, b lost and c won; interval of Agresti and Min (2005): half a row added to each cell
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from shoestring.evaluate.windows import LN2, ratio_error
from shoestring.files import read_object
from shoestring.measure import Kind, Quantity
from shoestring.measure.intervals import NORMAL, around

WINDOWS, ROWS = "windows.json", "rows.json"
"""Beside `numbers.json`: losses and bytes of each window; for each share, which rows were right."""


def differences(before: Path, after: Path) -> dict[str, Quantity]:
    """After minus before, by figure, for two evaluations' folders; what was not measured on the same samples is left out.

    Raises:
        FileError: a file of an evaluation is damaged.
    """
    found = {}
    first, second = (_read(folder / WINDOWS) for folder in (before, after))
    if first and second and first["bytes"] == second["bytes"]:
        found["bits_per_byte"] = _bits(first["losses"], second["losses"], first["bytes"])
    first, second = (_read(folder / ROWS) for folder in (before, after))
    for name in first:
        if len(first[name]) == len(second.get(name, ())):
            found[name] = _share(first[name], second[name])
    return found


def _read(file: Path) -> dict[str, list]:
    return read_object(file) if file.exists() else {}


def _bits(before: Sequence[float], after: Sequence[float], sizes: list[int]) -> Quantity:
    gaps, count = [b - a for a, b in zip(before, after)], len(sizes)
    error = ratio_error(gaps, sizes)
    value = sum(gaps) / sum(sizes) / LN2
    method = f"after minus before, paired over {count} windows, within these weights"
    return Quantity(value, "bit/B", Kind.MEASURED, method, around(value, None if error is None else error / LN2, count))


def _share(before: Sequence[bool], after: Sequence[bool]) -> Quantity:
    count = len(before)
    lost, won = sum(a and not b for a, b in zip(before, after)), sum(b and not a for a, b in zip(before, after))
    more = count + 2
    middle = (won - lost) / more
    half = NORMAL * math.sqrt(lost + won + 1 - (won - lost) ** 2 / more) / more
    method = f"after minus before, paired over {count} rows ({won} won, {lost} lost), within these weights"
    return Quantity((won - lost) / count, "", Kind.MEASURED, method, (max(-1.0, middle - half), min(1.0, middle + half)))
