"""The learning rate at each step, as pure functions.

WSD (warm-up, stable, decay; arXiv 2404.06395, its 1 - sqrt fall arXiv 2405.18392) keeps one rate until a last part in which
it falls, so that one trunk serves many budgets. Cosine (arXiv 1608.03983) falls from the warm-up's end on. So does the straight
line, which did as well or better where both were compared at length (arXiv 2310.07831).

A position is a place in the planned schedule, in steps. Normally it is the step's number; when training must end sooner
(`bring_forward`), the rest of the schedule is travelled faster, WSD's stable part being left out first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.choice import Choice, Table
from shoestring.errors import SettingError

if TYPE_CHECKING:
    from shoestring.train.settings import Training


@dataclass(frozen=True, slots=True)
class Schedule:
    """A planned course: `steps` in all, `warmup` of them rising, the last `decay` of them falling, `peak` between."""

    settings: Training
    steps: int
    peak: float
    warmup: int = 0
    decay: int = 0

    def at(self, position: float) -> float:
        """Learning rate at a position in [0, steps)."""
        return self.peak * SCHEDULES[self.settings.schedule](self, position)


def planned(settings: Training, steps: int, peak: float, warmup: int, decay: int) -> Schedule:
    """A schedule whose parts fit together.

    Raises:
        SettingError: they don't.
    """
    if steps < 1:
        raise SettingError(f"training: steps must be at least 1, got {steps}")
    if not (peak > 0 and math.isfinite(peak)):
        raise SettingError(f"training: learning_rate must be above 0, got {peak}")
    if warmup < 0 or decay < 0 or warmup + decay > steps:
        raise SettingError(
            f"training: warmup ({warmup}) and decay ({decay}) must be at least 0 and together at most steps ({steps})"
        )
    return Schedule(settings, steps, peak, warmup, decay)


def wsd(schedule: Schedule, position: float) -> float:
    """Share of the peak: rises in `warmup` steps, stays, falls in the last `decay` steps towards the floor."""
    if position + 1 < schedule.warmup:
        return (position + 1) / schedule.warmup
    left = schedule.steps - position
    if left >= schedule.decay:
        return 1.0
    gone = 1 - left / schedule.decay
    fall = math.sqrt(gone) if schedule.settings.decay_shape == "sqrt" else gone
    return schedule.settings.floor + (1 - schedule.settings.floor) * (1 - fall)


def cosine(schedule: Schedule, position: float) -> float:
    """Share of the peak: rises in `warmup` steps, then half a cosine down to the floor at the end; `decay` plays no part."""
    if position + 1 < schedule.warmup:
        return (position + 1) / schedule.warmup
    gone = (position - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    floor = schedule.settings.floor
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(max(gone, 0.0), 1.0)))


def linear(schedule: Schedule, position: float) -> float:
    """Share of the peak: rises in `warmup` steps, then a straight line down to the floor at the end; `decay` plays no part."""
    if position + 1 < schedule.warmup:
        return (position + 1) / schedule.warmup
    gone = (position - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return 1 - (1 - schedule.settings.floor) * min(max(gone, 0.0), 1.0)


WSD = Choice(
    "wsd", wsd, "warm-up, stable, decay: one trunk serves many budgets", row="T3", paper="2404.06395", saves=("computation",)
)
COSINE = Choice("cosine", cosine, "warm-up, then half a cosine down to a floor", row="T3", paper="1608.03983")
LINEAR = Choice("linear", linear, "warm-up, then a straight line down to a floor", row="T3", paper="2310.07831")
SCHEDULES = Table("Training.schedule", WSD, COSINE, LINEAR)
"""Each gives the share of the peak learning rate at a position."""


@dataclass(frozen=True, slots=True)
class Course:
    """How steps map to positions: from step `start` on, position = `origin` + (step - start) x `pace`; ends at step `end`."""

    end: int
    start: int = 0
    origin: float = 0.0
    pace: float = 1.0

    def position(self, step: int) -> float:
        """Where in the planned schedule a step stands."""
        return self.origin + (step - self.start) * self.pace


def bring_forward(schedule: Schedule, course: Course, step: int, left: int) -> Course:
    """The course that ends after `left` more steps from `step` on, with the decay complete.

    WSD in its stable part skips the rest of that part; if not even the decay fits, it falls faster. In any other place the
    rest of the schedule is travelled at a higher pace.
    """
    position = course.position(step)
    falls = schedule.steps - schedule.decay
    if schedule.settings.schedule == "wsd" and schedule.warmup <= position < falls:
        position = max(position, float(min(schedule.steps - left, falls)))
    return Course(step + left, step, position, (schedule.steps - position) / max(1, left))
