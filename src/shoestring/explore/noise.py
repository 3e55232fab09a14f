"""What is known of a figure's noise, and from it the interval of any comparison of cells.

Intervals, 95 %, from the best source at hand:

- repeats (several seeds): bootstrap of the residuals after cell means and seed means are taken out, pooled over cells;
- one run, every cell judged on the same text: its windows, paired over the cells;
- one run, an evaluation with standard errors on texts that differ: those errors, cells taken as independent;
- one run, a counted figure: exact, the interval is a point;
- one run otherwise: Lenth's pseudo standard error (Technometrics 31, 1989), most contrasts taken for noise; it needs k >= 3.

Only repeats know what another seed would bring. Under a seed noise of .14 to .5 % of the loss, intervals from the windows of one
run cover the truth in .53 to .91 of all cases instead of .95: what they say holds within these weights, and is no clear verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shoestring.measure import Kind
from shoestring.measure.intervals import LEVEL, NORMAL, student

Verdict = Literal["clear", "within these weights", "not clear", "exact", "too wide", "unknown"]
"""What an interval says of a ratio: `clear` needs repeats; one seed can only show a difference within these weights."""

TOO_WIDE = 1.5
"""A factor either way from which Lenth's interval of a single run says nothing that anyone would act on."""
_DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the whole table: logs of its values, their standard errors, the influences of W samples; None if unknown."""

    name: str
    unit: str
    logs_RC: np.ndarray
    errors_RC: np.ndarray | None
    influences_RCW: np.ndarray | None
    kind: Kind


class Noise:
    """What is known of a figure's noise, and from it the interval of any linear combination of cells."""

    def __init__(self, figure: Figure, count: int) -> None:
        self.mean_C = figure.logs_RC.mean(axis=0)
        self.half_width: float | None = None
        """Half-width of the interval of a combination whose squared coefficients sum to 1."""
        self.errors_C: np.ndarray | None = None
        self.influences_CW: np.ndarray | None = None
        self.draws_DC: np.ndarray | None = None
        self.too_wide = False
        repeats, cells = figure.logs_RC.shape
        if repeats > 1:
            self.draws_DC = _bootstrap(figure.logs_RC)
            self.method = f"bootstrap over {repeats} repeats"
        elif figure.kind is Kind.COUNTED:
            self.half_width, self.method = 0.0, "counted: exact for this seed"
        elif figure.influences_RCW is not None:
            self.influences_CW = figure.influences_RCW[0]
            windows = self.influences_CW.shape[1]
            self.method = f"the evaluation's {windows} windows, paired over the runs (without the noise of training seeds)"
        elif figure.errors_RC is not None:
            self.errors_C = figure.errors_RC[0]
            self.method = "evaluation standard error (cells taken as independent; without the noise of training seeds)"
        elif count >= 3:
            _, margin = lenth([float(contrast(s, count) @ self.mean_C) for s in range(1, cells)])
            self.half_width = margin * math.sqrt(cells) / 2
            self.method = "Lenth's pseudo standard error of the contrasts (one run a cell)"
            self.too_wide = margin > math.log(TOO_WIDE)
            if self.too_wide:
                self.method += f": too wide to be of use, a factor of {math.exp(min(margin, 99)):.2g} either way; ask for repeats"
        else:
            self.method = "no interval: one run a cell and fewer than three factors; ask for repeats"

    def verdict(self, interval: tuple[float, float] | None) -> Verdict:
        """What an interval from `judge` says of its ratio."""
        if interval is None:
            return "unknown"
        if self.half_width == 0.0:
            return "exact"
        if self.too_wide:
            return "too wide"
        if interval[0] <= 1 <= interval[1]:
            return "not clear"
        return "clear" if self.draws_DC is not None else "within these weights"

    def judge(self, coefficients_C: np.ndarray) -> tuple[float, tuple[float, float] | None, str]:
        """Ratio, interval and its method for a combination of log figures."""
        middle = float(coefficients_C @ self.mean_C)
        if self.draws_DC is not None:
            low, high = np.quantile(self.draws_DC @ coefficients_C, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            interval = (math.exp(middle + float(low)), math.exp(middle + float(high)))
        else:
            if self.influences_CW is not None:
                samples = self.influences_CW.shape[1]
                of_samples_W = coefficients_C @ self.influences_CW
                half = student(samples - 1) * math.sqrt(samples / (samples - 1) * float(of_samples_W @ of_samples_W))
            elif self.errors_C is not None:
                half = NORMAL * math.sqrt(float((coefficients_C**2) @ (self.errors_C**2)))
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
    scale = math.sqrt(repeats * cells / freedom) * student(freedom) / NORMAL
    chosen_DRC = np.random.default_rng(0).integers(residuals_RC.size, size=(_DRAWS, repeats, cells))
    return (residuals_RC.ravel() * scale)[chosen_DRC].mean(axis=1)


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
