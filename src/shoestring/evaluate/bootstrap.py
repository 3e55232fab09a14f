"""Is a difference between two models more than chance? The paired bootstrap (Efron 1979; for paired systems Koehn 2004).

Both models are scored on the same units (windows, rows); units are drawn with replacement, and the difference of the means
(or of ratios of sums, with weights) is looked at in each draw. Draws from n units vary less than n units do; the percentiles lie
farther out by that and by Student's t (Hesterberg 2015, arXiv 1411.5279, "expanded percentiles").

It is the units that vary, not the weights: another seed of either training may well bring another difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from shoestring.errors import SettingError
from shoestring.measure.intervals import student

DRAWN_AT_ONCE = 1 << 22
"""Random numbers held at one time."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference a - b, its 95 % interval (percentiles of the draws), and the two-sided p-value of 'no difference'."""

    difference: float
    interval: tuple[float, float]
    p_value: float
    units: int
    resamples: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.difference:+.4g}, 95 %: {low:+.4g} to {high:+.4g} over {self.units} units, within these weights"


def paired_bootstrap(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    resamples: int = 10_000,
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> Comparison:
    """Compare two models by their scores on the same units.

    Args:
        scores_a, scores_b: one figure per unit, such as `Score.window_losses`, or right (1) and wrong (0).
        weights: what each unit counts, such as `Score.window_bytes`: figures are then sum(scores) / sum(weights).

    Raises:
        SettingError: fewer than two units, lengths that differ, weights that are not above zero in sum.
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    weight = np.ones_like(a) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (a.shape == b.shape == weight.shape) or a.ndim != 1 or len(a) < 2:
        raise SettingError(
            f"bootstrap: needs two scores and a weight for each of at least 2 units, got {a.shape}, {b.shape}, {weight.shape}"
        )
    if resamples < 1 or weight.min() < 0 or weight.sum() <= 0:
        raise SettingError("bootstrap: resamples must be at least 1, weights not negative and not all 0")
    generator = np.random.default_rng(seed)
    gap, drawn = a - b, []
    at_once = max(1, DRAWN_AT_ONCE // len(a))
    for begin in range(0, resamples, at_once):
        units = generator.integers(len(a), size=(min(at_once, resamples - begin), len(a)))
        below = weight[units].sum(1)
        drawn.append(np.divide(gap[units].sum(1), below, out=np.zeros(len(units)), where=below > 0))
    draws = np.concatenate(drawn)
    tail = NormalDist().cdf(-math.sqrt(len(a) / (len(a) - 1)) * student(len(a) - 1))
    low, high = np.quantile(draws, [tail, 1 - tail])
    # One is added to both counts so that a finite number of draws never claims certainty.
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return Comparison(
        difference=float(gap.sum() / weight.sum()),
        interval=(float(low), float(high)),
        p_value=float(min(1.0, 2 * (beyond + 1) / (resamples + 1))),
        units=len(a),
        resamples=resamples,
    )
