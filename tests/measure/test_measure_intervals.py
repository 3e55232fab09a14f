"""Student's t, Wilson's score, and that they cover what they promise."""

import math

import numpy as np
import pytest

from shoestring.measure.intervals import NORMAL, around, in_words, student, wilson


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [
        (1, 12.706205),
        (2, 4.302653),
        (4, 2.776445),
        (9, 2.262157),
        (200, 1.971896),
        (201, 1.971837),
        (1e9, NORMAL),
    ],
)
def test_student_agrees_with_printed_tables(freedom: float, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, abs=1e-6)


def test_student_takes_fractions_of_a_degree() -> None:
    assert student(2) > student(7 / 3) > student(3)


def test_a_mean_of_few_samples_is_covered_as_often_as_promised() -> None:
    draws = np.random.default_rng(0).normal(size=(20_000, 5))
    means, errors = draws.mean(axis=1), draws.std(axis=1, ddof=1) / math.sqrt(5)
    inside = [low <= 0 <= high for low, high in (around(*pair, 5) for pair in zip(means, errors))]  # type: ignore[misc]
    assert 0.945 < np.mean(inside) < 0.955
    assert np.mean(np.abs(means) <= NORMAL * errors) < 0.89  # what the normal quantile gave


def test_bounds_and_a_single_sample() -> None:
    assert around(0.1, 0.2, 4, least=0.0) == (0.0, pytest.approx(0.1 + 0.2 * student(3)))
    assert around(0.9, 0.2, 4, most=1.0) == (pytest.approx(0.9 - 0.2 * student(3)), 1.0)
    assert around(1.0, None, 1) is None
    assert in_words(None, 1) == "a single sample: no interval"
    assert "7 degrees" in in_words(0.1, 8)


@pytest.mark.parametrize(
    ("right", "count", "bounds"), [(0, 10, (0.0, 0.27753)), (10, 10, (0.72247, 1.0)), (8, 40, (0.105, 0.348))]
)
def test_wilson_agrees_with_worked_examples(right: int, count: int, bounds: tuple[float, float]) -> None:
    assert wilson(right, count) == pytest.approx(bounds, abs=1e-3)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_a_share_is_covered_as_often_as_promised(p: float) -> None:
    rights = np.random.default_rng(1).binomial(30, p, 4000)
    bounds = {right: wilson(int(right), 30) for right in set(rights.tolist())}
    assert np.mean([bounds[right][0] <= p <= bounds[right][1] for right in rights.tolist()]) > 0.92
