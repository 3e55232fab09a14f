"""Schedules: their shape, and the way they end sooner."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.train.schedule import SCHEDULES, Plan, Span, shorten
from shoestring.train.settings import Training


def _plan(steps=100, warmup=10, decay=20):
    return Plan(steps, 2.0, warmup, decay)


def test_wsd_by_hand():
    plan, settings = _plan(), Training(decay_shape="linear")
    assert plan.rate(settings, 0) == pytest.approx(0.2)
    assert plan.rate(settings, 8) == pytest.approx(1.8)
    assert [plan.rate(settings, step) for step in (9, 40, 79, 80)] == [2.0] * 4
    assert plan.rate(settings, 90) == pytest.approx(1.0)
    assert plan.rate(settings, 99) == pytest.approx(0.1)
    assert plan.rate(Training(decay_shape="sqrt"), 85) == pytest.approx(2 * (1 - math.sqrt(0.25)))
    assert plan.rate(Training(decay_shape="linear", floor=0.1), 100) == pytest.approx(0.2)


def test_cosine_by_hand():
    plan, settings = _plan(), Training(schedule="cosine", floor=0.1)
    assert plan.rate(settings, 4) == pytest.approx(1.0)
    assert plan.rate(settings, 10) == pytest.approx(2.0)
    assert plan.rate(settings, 55) == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert plan.rate(settings, 100) == pytest.approx(0.2)


def test_a_straight_line_by_hand():
    plan, settings = _plan(), Training(schedule="linear", floor=0.1)
    assert plan.rate(settings, 4) == pytest.approx(1.0)
    assert plan.rate(settings, 10) == pytest.approx(2.0)
    assert plan.rate(settings, 55) == pytest.approx(2 * 0.55)
    assert plan.rate(settings, 100) == pytest.approx(0.2)


@given(
    name=st.sampled_from(list(SCHEDULES)),
    steps=st.integers(2, 300),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    at=st.floats(0, 1),
    keep=st.floats(0.01, 1),
)
def test_a_shortened_schedule_still_ends_decayed_and_never_passes_the_peak(name, steps, shares, at, keep):
    plan, settings = _plan(steps, int(shares[0] * steps), int(shares[1] * steps)), Training(schedule=name)
    step = min(steps - 1, int(at * steps))
    left = max(1, int(keep * (steps - step)))
    span = shorten(plan, settings, Span(steps), step, left)
    assert span.end == step + left
    assert span.position(span.end) == pytest.approx(steps)
    rates = [plan.rate(settings, span.position(s)) for s in range(step, span.end)]
    assert all(0 <= rate <= 2.0 + 1e-12 for rate in rates)
    again = shorten(plan, settings, span, step, max(1, left // 2))
    assert again.position(again.end) == pytest.approx(steps)


def test_wsd_leaves_out_the_stable_part_before_it_touches_the_decay():
    plan, settings = _plan(), Training()
    span = shorten(plan, settings, Span(100), 40, 30)
    assert [span.position(step) for step in (40, 49, 50, 69)] == [70, 79, 80, 99]
    hurried = shorten(plan, settings, Span(100), 40, 10)
    assert [hurried.position(step) for step in (40, 45)] == [80, 90]
