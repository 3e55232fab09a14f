"""Do gains multiply? The arithmetic of a full two-level factorial, in logarithms.

Every cell of the 2^k table holds one figure y > 0 for one set of techniques. With effect coding x_i = +1 (present) or
-1 (absent), the contrast of a set S of factors is `2 / 2^k * sum_cells prod_{i in S} x_i * log y` (Box, Hunter and Hunter,
Statistics for Experimenters, chapter 5): for one factor the mean change of log y when it comes in, for several their
interaction, 0 when they multiply exactly. Beside the contrasts stands the plain question: the measured combination over
the product of the gains that each factor shows alone. All of these are linear in log y with coefficients that sum to 0, so
one rule gives every interval (`noise.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shoestring.explore.noise import Figure, Noise, Verdict, contrast
from shoestring.measure import Kind, Quantity
from shoestring.measure.intervals import NORMAL


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the factorial.

    Attributes:
        present: the factors that were in.
        figures: by name.
        influences: for a figure that is a mean over samples (windows of a text), what each sample adds to the logarithm of
            the figure; sums to 0. Given when every cell has the same samples, in the same order.
    """

    present: frozenset[str]
    figures: Mapping[str, Quantity]
    repeat: int = 0
    influences: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Effect:
    """How one factor, or the interaction of several, changes a figure on average over everything else.

    Attributes:
        ratio: exp of the contrast: 0.5 halves the figure, 1 leaves it; for an interaction 1 means that the gains multiply.
        interval: 95 %, or None, and then `method` gives the reason.
        method: where the interval comes from.
        verdict: what it says of the ratio; "clear" only with repeats.
    """

    figure: str
    factors: tuple[str, ...]
    ratio: float
    interval: tuple[float, float] | None
    method: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Combination:
    """All factors at once against the product of what each does alone.

    Attributes:
        baseline: the figure with no factor in.
        gains: per factor, alone / baseline.
        product: of the gains.
        measured: all factors / baseline.
        interaction: measured / product; 1 when the gains multiply.
        additive: measured / (1 + sum of the changes alone); 1 when the changes add up, as costs of steps do.
    """

    figure: str
    unit: str
    baseline: float
    gains: dict[str, float]
    product: float
    measured: float
    interaction: float
    additive: float | None
    interval: tuple[float, float] | None
    method: str
    verdict: Verdict
    """Of the interaction."""


def factors_of(table: Sequence[Cell]) -> tuple[str, ...]:
    """The factors of a table, in alphabetical order."""
    return tuple(sorted(frozenset().union(*(cell.present for cell in table))))


def effects(table: Sequence[Cell], factors: Sequence[str] | None = None) -> list[Effect]:
    """Every main effect and interaction of a full factorial, per figure, main effects first.

    Args:
        table: one cell per set of factors and repeat; figures that some cell lacks, or that are not above 0, are left
            out (`unusable` names them).
        factors: their order; alphabetical by default.

    Raises:
        ValueError: when a cell of the factorial is missing or there twice.
    """
    factors = tuple(factors or factors_of(table))
    found = []
    for figure in _figures(table, factors):
        noise = Noise(figure, len(factors))
        for subset in sorted(range(1, 2 ** len(factors)), key=lambda s: (s.bit_count(), s)):
            names = tuple(name for bit, name in enumerate(factors) if subset >> bit & 1)
            ratio, interval, method = noise.judge(contrast(subset, len(factors)))
            found.append(Effect(figure.name, names, ratio, interval, method, noise.verdict(interval)))
    return found


def combinations(table: Sequence[Cell], factors: Sequence[str] | None = None) -> list[Combination]:
    """Per figure, the measured combination of all factors against the product of their gains alone.

    Raises:
        ValueError: when a cell of the factorial is missing or there twice.
    """
    factors = tuple(factors or factors_of(table))
    count = len(factors)
    found = []
    for figure in _figures(table, factors):
        logs_C = figure.logs_RC.mean(axis=0)
        gains = {name: math.exp(logs_C[1 << bit] - logs_C[0]) for bit, name in enumerate(factors)}
        coefficients_C = np.zeros(2**count)
        coefficients_C[0] += count - 1
        for bit in range(count):
            coefficients_C[1 << bit] -= 1
        coefficients_C[-1] += 1
        noise = Noise(figure, count)
        interaction, interval, method = noise.judge(coefficients_C)
        measured = math.exp(logs_C[-1] - logs_C[0])
        summed = 1 + sum(gain - 1 for gain in gains.values())
        found.append(
            Combination(
                figure=figure.name,
                unit=figure.unit,
                baseline=math.exp(logs_C[0]),
                gains=gains,
                product=math.prod(gains.values()),
                measured=measured,
                interaction=interaction,
                additive=measured / summed if summed > 0 else None,
                interval=interval,
                method=method,
                verdict=noise.verdict(interval),
            )
        )
    return found


def unusable(table: Sequence[Cell]) -> dict[str, str]:
    """Figures that can't be compared over the whole table, with the reason."""
    said: dict[str, str] = {}
    for name in dict.fromkeys(name for cell in table for name in cell.figures):
        for cell in table:
            found = cell.figures.get(name)
            where = "+".join(sorted(cell.present)) or "the baseline"
            if found is None or found.value is None:
                said[name] = f"unknown for {where}" + (f": {found.method}" if found is not None and found.method else "")
            elif found.value == 0:
                said[name] = f"0 for {where}; a ratio to it means nothing"
            elif found.value < 0 or not math.isfinite(found.value):
                said[name] = f"{found.value} for {where}; a logarithm needs a figure above 0"
            if name in said:
                break
    return said


def _figures(table: Sequence[Cell], factors: Sequence[str]) -> list[Figure]:
    """The usable figures of a table as arrays over (repeat, cell)."""
    place = {name: bit for bit, name in enumerate(factors)}
    repeats = sorted({cell.repeat for cell in table})
    cells: dict[tuple[int, int], Cell] = {}
    for cell in table:
        unknown = cell.present - place.keys()
        if unknown:
            raise ValueError(f"the cell {sorted(cell.present)} holds factors that are not named: {sorted(unknown)}")
        key = (cell.repeat, sum(1 << place[name] for name in cell.present))
        if key in cells:
            raise ValueError(f"the cell {sorted(cell.present)} of repeat {cell.repeat} is there twice")
        cells[key] = cell
    wanted = [(repeat, bits) for repeat in repeats for bits in range(2 ** len(factors))]
    missing = [key for key in wanted if key not in cells]
    if missing:
        names = [name for bit, name in enumerate(factors) if missing[0][1] >> bit & 1]
        raise ValueError(f"the factorial lacks {len(missing)} cells, such as {names} of repeat {missing[0][0]}")
    left_out = unusable(table)
    found = []
    for name, first in table[0].figures.items():
        if name in left_out:
            continue
        quantities = [cells[key].figures[name] for key in wanted]
        shape = (len(repeats), 2 ** len(factors))
        errors = [_log_error(quantity) for quantity in quantities]
        known = [error for error in errors if error is not None]
        influences = [tuple(cells[key].influences.get(name, ())) for key in wanted]
        paired = len(influences[0]) > 1 and all(len(each) == len(influences[0]) for each in influences)
        found.append(
            Figure(
                name,
                first.unit,
                np.array([math.log(quantity.value or math.nan) for quantity in quantities]).reshape(shape),
                np.array(known).reshape(shape) if len(known) == len(quantities) else None,
                np.array(influences).reshape(*shape, -1) if paired else None,
                Kind.COUNTED if all(quantity.kind is Kind.COUNTED for quantity in quantities) else first.kind,
            )
        )
    return found


def _log_error(quantity: Quantity) -> float | None:
    """The standard error of log(value), from a 95 % interval of a measured figure."""
    if quantity.interval is None or not quantity.value or quantity.kind is not Kind.MEASURED:
        return None
    return (quantity.interval[1] - quantity.value) / NORMAL / quantity.value  # the lower end may stand at 0
