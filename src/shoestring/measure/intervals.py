"""How sure a figure from samples is: 95 % intervals by Student's t for means, by Wilson's score for shares.

    mean   value ± t(n - 1) standard errors       (Student 1908: t is 2.78 for 5 windows, 2.00 for 60)
    share  (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)      (Wilson 1927: within 0 and 1, and open at 0 of n)

n samples, p a share of them, z the normal quantile.
"""

from __future__ import annotations

import math
from functools import lru_cache

LEVEL = 0.95
NORMAL = 1.959963984540054
"""Standard errors to either side of a 95 % interval of a normal estimate."""

Interval = tuple[float, float]


@lru_cache(maxsize=256)
def student(freedom: float) -> float:
    """The two-sided 95 % quantile of Student's t for a real number (at least 1) of degrees of freedom."""
    if freedom > 200:  # the first terms of its expansion about the normal quantile (Abramowitz and Stegun, 26.7.5)
        z = NORMAL
        terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
        return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _to(middle, freedom) < LEVEL * whole else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _to(angle: float, freedom: float, parts: int = 128) -> float:
    """Simpson's integral of the density from 0: with x = sqrt(d) tan(a) it becomes cos(a)^(d - 1), smooth and finite."""
    step = angle / parts
    inner = sum((4 if part % 2 else 2) * math.cos(part * step) ** (freedom - 1) for part in range(1, parts))
    return (1.0 + inner + math.cos(angle) ** (freedom - 1)) * step / 3


def around(value: float, error: float | None, samples: int, least: float = -math.inf, most: float = math.inf) -> Interval | None:
    """The interval of a mean over `samples` samples with its standard error; None where that is not known.

    Args:
        least, most: what the figure can't pass, such as 0 for a loss.
    """
    if error is None or samples < 2:
        return None
    half = student(samples - 1) * error
    return max(least, value - half), min(most, value + half)


def wilson(right: int, count: int) -> Interval:
    """The interval of a share: `right` of `count` independent rows."""
    p, square = right / count, NORMAL**2 / count
    middle, half = p + square / 2, math.sqrt(square * (p * (1 - p) + square / 4))
    low = 0.0 if right == 0 else (middle - half) / (1 + square)
    return low, 1.0 if right == count else (middle + half) / (1 + square)


def in_words(error: float | None, samples: int) -> str:
    """A standard error and the rule of its interval, as a figure's method says them; empty where there is none."""
    if error is None or samples < 2:
        return "a single sample: no interval"
    return f"standard error {error:.3g}, 95 % by Student's t with {samples - 1} degrees of freedom"
