"""Do gains multiply? The arithmetic of a full two-level factorial, in logarithms.

Every cell of the 2^k table holds one figure y > 0 for one set of techniques. With effect coding x_i = +1 (present) or
-1 (absent), the contrast of a set S of factors is `2 / 2^k * sum_cells prod_{i in S} x_i * log y` (Box, Hunter and Hunter,
Statistics for Experimenters, chapter 5): for one factor the mean change of log y when it comes in, for several their
interaction, 0 when they multiply exactly. Beside the contrasts stands the plain question: the measured combination over
the product of the gains that each factor shows alone. All of these are linear in log y with coefficients that sum to 0, so
one rule gives every interval.

Intervals, 95 %, from the best source at hand:

- repeats (several seeds): bootstrap of the residuals after cell means and seed means are taken out, pooled over cells;
- one run, an evaluation with standard errors: those errors, cells taken as independent (they share the text, so this is wide);
- one run, a counted figure: exact, the interval is a point;
- one run otherwise: Lenth's pseudo standard error (Technometrics 31, 1989), most contrasts taken for noise; it needs k >= 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoestring.measure import Kind, Quantity

LEVEL = 0.95
_DRAWS = 4000
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the factorial: which factors were in, which repeat, and its figures by name."""

    present: frozenset[str]
    figures: Mapping[str, Quantity]
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Effect:
    """How one factor, or the interaction of several, changes a figure on average over everything else.

    Attributes:
        ratio: exp of the contrast: 0.5 halves the figure, 1 leaves it; for an interaction 1 means that the gains multiply.
        interval: 95 %, or None, and then `method` gives the reason.
        method: where the interval comes from.
    """

    figure: str
    factors: tuple[str, ...]
    ratio: float
    interval: tuple[float, float] | None
    method: str

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.interval is not None and not (self.interval[0] <= 1 <= self.interval[1])


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


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure of the whole table: log values (repeats, cells), standard errors of the logs or None, kind."""

    name: str
    unit: str
    logs_RC: np.ndarray
    errors_RC: np.ndarray | None
    kind: Kind


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
        noise = _Noise(figure, len(factors))
        for subset in sorted(range(1, 2 ** len(factors)), key=lambda s: (s.bit_count(), s)):
            names = tuple(name for bit, name in enumerate(factors) if subset >> bit & 1)
            ratio, interval, method = noise.judge(contrast(subset, len(factors)))
            found.append(Effect(figure.name, names, ratio, interval, method))
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
        interaction, interval, method = _Noise(figure, count).judge(coefficients_C)
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


def contrast(subset: int, count: int) -> np.ndarray:
    """Coefficients (2^count,) of the contrast of a set of factors, given as bits; cell c holds the factors of its bits."""
    signs_C = [(-1) ** (subset.bit_count() - (subset & cell).bit_count()) for cell in range(2**count)]
    return np.array(signs_C, dtype=np.float64) / 2 ** (count - 1)


def lenth(contrasts: Sequence[float]) -> tuple[float, float]:
    """Lenth's pseudo standard error of a contrast, and the half-width of its 95 % interval (his ME)."""
    sizes = np.abs(np.asarray(contrasts, dtype=np.float64))
    first = 1.5 * float(np.median(sizes))
    small = sizes[sizes < 2.5 * first]
    error = 1.5 * float(np.median(small)) if small.size else first
    return error, student(len(sizes) / 3) * error


def student(freedom: float, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t for a real number (>= 1) of degrees of freedom.

    With x = sqrt(d) tan(a) the density becomes cos(a)^(d-1), smooth on a finite interval, so that Gauss-Legendre is exact
    to rounding.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)

    def inside(angle: float) -> float:
        return float((weights * np.cos((nodes + 1) * angle / 2) ** (freedom - 1)).sum() * angle / 2)

    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level * whole else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


class _Noise:
    """What is known of a figure's noise, and from it the interval of any linear combination of cells."""

    def __init__(self, figure: _Figure, count: int) -> None:
        self.mean_C = figure.logs_RC.mean(axis=0)
        self.half_width: float | None = None
        """Half-width of the interval of a combination whose squared coefficients sum to 1."""
        self.errors_C: np.ndarray | None = None
        self.draws_DC: np.ndarray | None = None
        repeats, cells = figure.logs_RC.shape
        if repeats > 1:
            self.draws_DC = _bootstrap(figure.logs_RC)
            self.method = f"bootstrap over {repeats} repeats"
        elif figure.kind is Kind.COUNTED:
            self.half_width, self.method = 0.0, "counted: exact for this seed"
        elif figure.errors_RC is not None:
            self.errors_C = figure.errors_RC[0]
            self.method = "evaluation standard error (cells taken as independent; without the noise of training seeds)"
        elif count >= 3:
            _, margin = lenth([float(contrast(s, count) @ self.mean_C) for s in range(1, cells)])
            self.half_width = margin * math.sqrt(cells) / 2
            self.method = "Lenth's pseudo standard error of the contrasts"
        else:
            self.method = "no interval: one run a cell and fewer than three factors; ask for repeats"

    def judge(self, coefficients_C: np.ndarray) -> tuple[float, tuple[float, float] | None, str]:
        """Ratio, interval and its method for a combination of log figures."""
        middle = float(coefficients_C @ self.mean_C)
        if self.draws_DC is not None:
            low, high = np.quantile(self.draws_DC @ coefficients_C, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            interval = (math.exp(middle + float(low)), math.exp(middle + float(high)))
        else:
            if self.errors_C is not None:
                half = _Z * math.sqrt(float((coefficients_C**2) @ (self.errors_C**2)))
            elif self.half_width is not None:
                half = self.half_width * math.sqrt(float(coefficients_C @ coefficients_C))
            else:
                return math.exp(middle), None, self.method
            interval = (math.exp(middle - half), math.exp(middle + half))
        return math.exp(middle), interval, self.method


def _bootstrap(logs_RC: np.ndarray) -> np.ndarray:
    """Draws (draws, cells) of the error of the cell means.

    A seed is shared by all cells of a repeat; what it adds to all of them cancels in every combination here, so seed
    means go out with cell means. The residuals are scaled up for the means taken out, and by t over normal for their
    few degrees of freedom.
    """
    repeats, cells = logs_RC.shape
    residuals_RC = logs_RC - logs_RC.mean(axis=0) - logs_RC.mean(axis=1, keepdims=True) + logs_RC.mean()
    freedom = (repeats - 1) * (cells - 1)
    scale = math.sqrt(repeats * cells / freedom) * student(freedom) / _Z
    chosen_DRC = np.random.default_rng(0).integers(residuals_RC.size, size=(_DRAWS, repeats, cells))
    return (residuals_RC.ravel() * scale)[chosen_DRC].mean(axis=1)


def _figures(table: Sequence[Cell], factors: Sequence[str]) -> list[_Figure]:
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
        found.append(
            _Figure(
                name,
                first.unit,
                np.array([math.log(quantity.value or math.nan) for quantity in quantities]).reshape(shape),
                np.array(known).reshape(shape) if len(known) == len(quantities) else None,
                Kind.COUNTED if all(quantity.kind is Kind.COUNTED for quantity in quantities) else first.kind,
            )
        )
    return found


def _log_error(quantity: Quantity) -> float | None:
    """The standard error of log(value), from a 95 % interval of a measured figure."""
    if quantity.interval is None or not quantity.value or quantity.kind is not Kind.MEASURED:
        return None
    return (quantity.interval[1] - quantity.interval[0]) / 2 / _Z / quantity.value
