"""The learning rate at each step, as pure functions.

WSD (warm-up, stable, decay; arXiv 2404.06395, its 1 - sqrt fall arXiv 2405.18392) keeps one rate until a last part in which
it falls, so that one trunk serves many budgets. Cosine (arXiv 1608.03983) falls from the warm-up's end on. So does the straight
line, which did as well or better where both were compared at length (arXiv 2310.07831).

A position is a place in the planned schedule, in steps. Normally it is the step's number; when training must end sooner
(`shorten`), the rest of the schedule is travelled faster, WSD's stable part being left out first.
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
class Plan:
    """How far a training goes and how fast.

    Attributes:
        steps: optimizer steps. learning_rate: at the schedule's peak. warmup, decay: first and last steps of the schedule.
        micro_batches: parts of a batch that pass one after the other.

    Raises:
        SettingError: its parts don't fit together.
    """

    steps: int
    learning_rate: float
    warmup: int = 0
    decay: int = 0
    micro_batches: int = 1

    def __post_init__(self) -> None:
        steps, peak, warmup, decay = self.steps, self.learning_rate, self.warmup, self.decay
        if steps < 1:
            raise SettingError(f"training: steps must be at least 1, got {steps}")
        if not (peak > 0 and math.isfinite(peak)):
            raise SettingError(f"training: learning_rate must be above 0, got {peak}")
        if warmup < 0 or decay < 0 or warmup + decay > steps:
            raise SettingError(
                f"training: warmup ({warmup}) and decay ({decay}) must be at least 0 and together at most steps ({steps})"
            )
        if self.micro_batches < 1:
            raise SettingError(f"training: micro_batches must be at least 1, got {self.micro_batches}")

    def rate(self, settings: Training, position: float) -> float:
        """Learning rate at a position in [0, steps)."""
        return self.learning_rate * SCHEDULES[settings.schedule](self, settings, position)


def wsd(plan: Plan, settings: Training, position: float) -> float:
    """Share of the peak: rises in `warmup` steps, stays, falls in the last `decay` steps towards the floor."""
    if position + 1 < plan.warmup:
        return (position + 1) / plan.warmup
    left = plan.steps - position
    if left >= plan.decay:
        return 1.0
    gone = 1 - left / plan.decay
    fall = math.sqrt(gone) if settings.decay_shape == "sqrt" else gone
    return settings.floor + (1 - settings.floor) * (1 - fall)


def cosine(plan: Plan, settings: Training, position: float) -> float:
    """Share of the peak: rises in `warmup` steps, then half a cosine down to the floor at the end; `decay` plays no part."""
    if position + 1 < plan.warmup:
        return (position + 1) / plan.warmup
    gone = (position - plan.warmup) / max(1, plan.steps - plan.warmup)
    floor = settings.floor
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(max(gone, 0.0), 1.0)))


def linear(plan: Plan, settings: Training, position: float) -> float:
    """Share of the peak: rises in `warmup` steps, then a straight line down to the floor at the end; `decay` plays no part."""
    if position + 1 < plan.warmup:
        return (position + 1) / plan.warmup
    gone = (position - plan.warmup) / max(1, plan.steps - plan.warmup)
    return 1 - (1 - settings.floor) * min(max(gone, 0.0), 1.0)


WSD = Choice(
    "wsd", wsd, "warm-up, stable, decay: one trunk serves many budgets", row="T3", paper="2404.06395", saves=("computation",)
)
COSINE = Choice("cosine", cosine, "warm-up, then half a cosine down to a floor", row="T3", paper="1608.03983")
LINEAR = Choice("linear", linear, "warm-up, then a straight line down to a floor", row="T3", paper="2310.07831")
SCHEDULES = Table("Training.schedule", WSD, COSINE, LINEAR)
"""Each gives the share of the peak learning rate at a position."""


@dataclass(frozen=True, slots=True)
class Span:
    """How steps map to positions: from step `start` on, position = `origin` + (step - start) x `pace`; ends at step `end`."""

    end: int
    start: int = 0
    origin: float = 0.0
    pace: float = 1.0

    def position(self, step: int) -> float:
        """Where in the planned schedule a step stands."""
        return self.origin + (step - self.start) * self.pace


def shorten(plan: Plan, settings: Training, span: Span, step: int, left: int) -> Span:
    """The span that ends after `left` more steps from `step` on, with the decay complete.

    WSD in its stable part skips the rest of that part; if not even the decay fits, it falls faster. In any other place the
    rest of the schedule is travelled at a higher pace.
    """
    position = span.position(step)
    falls = plan.steps - plan.decay
    if settings.schedule == "wsd" and plan.warmup <= position < falls:
        position = max(position, float(min(plan.steps - left, falls)))
    return Span(step + left, step, position, (plan.steps - position) / max(1, left))
