"""Schedules: their shape, and the way they end sooner."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.train.schedule import SCHEDULES, Course, Schedule, bring_forward
from shoestring.train.settings import Training


def _schedule(name="wsd", steps=100, warmup=10, decay=20, **settings):
    return Schedule(Training(schedule=name, **settings), steps, 2.0, warmup, decay)


def test_wsd_by_hand():
    schedule = _schedule(decay_shape="linear")
    assert schedule.at(0) == pytest.approx(0.2)
    assert schedule.at(8) == pytest.approx(1.8)
    assert [schedule.at(step) for step in (9, 40, 79, 80)] == [2.0] * 4
    assert schedule.at(90) == pytest.approx(1.0)
    assert schedule.at(99) == pytest.approx(0.1)
    assert _schedule(decay_shape="sqrt").at(85) == pytest.approx(2 * (1 - math.sqrt(0.25)))
    assert _schedule(decay_shape="linear", floor=0.1).at(100) == pytest.approx(0.2)


def test_cosine_by_hand():
    schedule = _schedule("cosine", floor=0.1)
    assert schedule.at(4) == pytest.approx(1.0)
    assert schedule.at(10) == pytest.approx(2.0)
    assert schedule.at(55) == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert schedule.at(100) == pytest.approx(0.2)


def test_a_straight_line_by_hand():
    schedule = _schedule("linear", floor=0.1)
    assert schedule.at(4) == pytest.approx(1.0)
    assert schedule.at(10) == pytest.approx(2.0)
    assert schedule.at(55) == pytest.approx(2 * 0.55)
    assert schedule.at(100) == pytest.approx(0.2)


@given(
    name=st.sampled_from(list(SCHEDULES)),
    steps=st.integers(2, 300),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    at=st.floats(0, 1),
    keep=st.floats(0.01, 1),
)
def test_a_shortened_schedule_still_ends_decayed_and_never_passes_the_peak(name, steps, shares, at, keep):
    schedule = _schedule(name, steps, int(shares[0] * steps), int(shares[1] * steps))
    step = min(steps - 1, int(at * steps))
    left = max(1, int(keep * (steps - step)))
    course = bring_forward(schedule, Course(steps), step, left)
    assert course.end == step + left
    assert course.position(course.end) == pytest.approx(steps)
    rates = [schedule.at(course.position(s)) for s in range(step, course.end)]
    assert all(0 <= rate <= 2.0 + 1e-12 for rate in rates)
    again = bring_forward(schedule, course, step, max(1, left // 2))
    assert again.position(again.end) == pytest.approx(steps)


def test_wsd_leaves_out_the_stable_part_before_it_touches_the_decay():
    schedule = _schedule()
    course = bring_forward(schedule, Course(100), 40, 30)
    assert [course.position(step) for step in (40, 49, 50, 69)] == [70, 79, 80, 99]
    hurried = bring_forward(schedule, Course(100), 40, 10)
    assert [hurried.position(step) for step in (40, 45)] == [80, 90]
