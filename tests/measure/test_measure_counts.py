"""Counts times units: what work takes, and the fit that finds the units."""

from __future__ import annotations

import numpy as np
import pytest

from shoestring.measure import base_bytes, find
from shoestring.measure.counts import Units, both, products, seconds, times, unit, usage
from shoestring.measure.fitting import fit_units, nonnegative

CPU, GPU = find("cpu"), find("h200")
ASSUMED: Units = {"oven.bread": 2.0, "oven.matrices": products("fp32", 0.5, on_gpu=0.25), "oven.sent": lambda one: 1 / one.link}


def test_work_takes_its_counts_times_the_units() -> None:
    used = usage({"oven.bread": 3.0, "oven.matrices": 1e12}, 1e6, CPU, ASSUMED, flops=1e12, communication=5.0)
    assert used.seconds.value == pytest.approx(6.0 + 1e12 / (0.5 * CPU.rate("fp32")))
    assert used.peak_memory.value == 1e6 + base_bytes(CPU)
    assert (used.flops.value, used.communication.value) == (1e12, 5.0)
    assert seconds({"oven.matrices": 1e12}, ASSUMED, GPU) == pytest.approx(1e12 / (0.25 * GPU.rate("fp32")))


def test_a_term_that_is_not_there_needs_no_unit() -> None:
    assert seconds({"oven.sent": 0.0}, ASSUMED, CPU) == 0.0  # no link


def test_a_calibrated_unit_takes_the_place_of_an_assumed_one_and_narrows_the_interval() -> None:
    known = CPU.with_(reached={"oven.bread": 4.0, "oven.error": 0.02})
    assert unit("oven.bread", ASSUMED, known) == 4.0
    wide, narrow = (usage({"oven.bread": 1.0}, None, machine, ASSUMED).seconds for machine in (CPU, known))
    assert wide.interval == (1.0, 4.0)
    assert narrow.interval == pytest.approx((4.0 / 1.05, 4.0 * 1.05))


def test_counts_add_up() -> None:
    assert both({"a": 1.0, "b": 2.0}, times({"b": 1.0, "c": 4.0}, 2)) == {"a": 1.0, "b": 4.0, "c": 8.0}


def test_the_fit_finds_the_units_and_says_what_it_misses() -> None:
    rows = [{"oven.bread": float(n), "oven.starts": 1.0} for n in (1, 2, 8)]
    units, error = fit_units(rows, [3.5 + 2 * n for n in (1, 2, 8)])
    assert units == pytest.approx({"oven.bread": 2.0, "oven.starts": 3.5})
    assert error < 1e-6
    assert fit_units(rows, [5.5, 9.0, 19.5])[1] > 0.02


def test_least_squares_without_negatives() -> None:
    draw = np.random.default_rng(0)
    matrix = draw.random((12, 4))
    assert nonnegative(matrix, matrix @ [1.0, 0.0, 2.0, 3.0]) == pytest.approx([1, 0, 2, 3], abs=1e-6)
    held = nonnegative(matrix, matrix @ [1.0, -1.0, 2.0, 3.0])
    gradient = matrix.T @ (matrix @ held - matrix @ [1.0, -1.0, 2.0, 3.0])
    assert (held >= 0).all()
    assert (gradient[held == 0] >= -1e-6).all()
    assert gradient[held > 0] == pytest.approx(0, abs=1e-6)
