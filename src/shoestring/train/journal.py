"""What the host knows of a run: losses read behind the device, the log, the progress line, the limit of time."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoestring.architecture import counts
from shoestring.data.batch import Batch
from shoestring.errors import DiskFull, ShoestringError
from shoestring.progress import Progress
from shoestring.train import log, resume
from shoestring.train.clock import Clock, Mark, Timer
from shoestring.train.loss import Loss
from shoestring.train.parallel.layout import DATA, size
from shoestring.train.parallel.ranks import agreed, ranks
from shoestring.train.parts import Around, Job, Parts
from shoestring.train.schedule import shorten

BEHIND = 1
"""Steps that a GPU is given before the host reads the loss of the one before: so it never waits for the host."""
SAVING = 0.02
"""Largest share of the time that writing restart points may take."""


class Launched(NamedTuple):
    """A step that the host has not looked at yet."""

    values: Tensor
    """Loss, norm of the gradient, figures."""
    figures: tuple[str, ...]
    mark: Mark
    tokens: int
    rate: float


class Journal:
    """Follows one run. What must outlive a kill stands in the run's cursor."""

    def __init__(self, job: Job, parts: Parts, around: Around, progress: Progress) -> None:
        self.job, self.parts, self.around, self.cursor, self.progress = job, parts, around, parts.cursor, progress
        self.flops = around.flops
        self.peak = log.peak(None if around.meter is None else around.meter.hardware, job.settings)
        self.unread: deque[Launched] = deque()
        self.clock = Clock(self.cursor.elapsed)
        self.timer = Timer(job.device)
        self.logged_at, self.logged_tokens = self.clock.elapsed, self.cursor.tokens
        self.shown_at = -math.inf
        self.saved_at, self.saving_took, self.disk_full = self.clock.elapsed, 0.0, False

    def enter(self, loss: Loss, norm: Tensor, rate: float, batch: Batch) -> None:
        """A step of a batch, of which this rank has these rows, has been launched; read those that are far enough behind."""
        tokens, length = batch["tokens"].numel() * size(self.job.mesh, *DATA), batch["tokens"].shape[1]
        if self.flops is None:
            model: Any = self.parts.model
            self.flops = counts.training_flops(model.config, tokens, length)
        if self.around.meter is not None:
            self.around.meter.count(flops=self.flops / ranks())
        means = [loss.mean, norm, *(figure / loss.count.clamp(min=1) for figure in loss.figures.values())]
        values = torch.stack([value.double() for value in means])
        if self.job.device.type == "cuda":
            landed = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = landed.copy_(values, non_blocking=True)
        self.cursor.launched += 1
        self.unread.append(Launched(values, tuple(loss.figures), self.timer.mark(), tokens, rate))
        self.read(BEHIND if self.job.device.type == "cuda" else 0)

    def read(self, keep: int = 0) -> None:
        """Read the losses of the steps that were launched, all but the newest `keep`."""
        while len(self.unread) > keep:
            step = self.unread.popleft()
            ended = self.timer.wait(step.mark)
            loss, norm, *figures = step.values.tolist()
            self._check(loss, norm)
            self.clock.tick(ended)
            self.cursor.step += 1
            self.cursor.tokens += step.tokens
            self.cursor.since.append({"loss": loss, **dict(zip(step.figures, figures))})
            self._report(norm, step.rate, self.clock.at(ended))

    def left(self) -> int:
        """How many more steps to launch, so that the limit of time is kept."""
        cursor, limit = self.cursor, math.inf if self.around.time_limit is None else self.around.time_limit
        left, behind = cursor.span.end - cursor.launched, len(self.unread)
        fitting = agreed(max(0, self.clock.steps_left(left + behind, limit) - behind))
        if fitting >= left:
            return left
        before = cursor.span.end
        cursor.span = shorten(self.job.plan, self.job.settings, cursor.span, cursor.launched, fitting)
        self.around.note(
            f"training ends at step {cursor.span.end} instead of {before} to keep its limit of {limit:.0f} s; the decay is "
            "brought forward"
        )
        return fitting

    def save_when_due(self, scratch: Path, identity: str) -> None:
        """Write a restart point when the last one is old enough."""
        since = self.clock.elapsed - self.saved_at
        if not agreed(since >= self.job.settings.checkpoint_every and since * SAVING >= self.saving_took):
            return
        self.read()
        self.cursor.elapsed = before = self.clock.elapsed
        try:
            resume.save(scratch, identity, self.cursor.step, self.parts.stateful())
        except DiskFull as error:
            if not self.disk_full:
                self.around.note(f"training goes on without a new restart point: {error}")
            self.disk_full = True
        self.saved_at = self.clock.elapsed
        self.saving_took = self.saved_at - before

    def _check(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what, plan, scratch = "loss" if not math.isfinite(loss) else "gradient", self.job.plan, self.around.scratch
        points = [] if scratch is None else resume.points(scratch)
        last = f"; the last restart point is {points[-1].name}" if points else ""
        raise ShoestringError(
            f"training: the {what} is not finite at step {self.cursor.step + 1} of {self.cursor.span.end}{last}; "
            f"lower learning_rate ({plan.learning_rate:g}) or raise warmup ({plan.warmup})"
        )

    def _report(self, norm: float, rate: float, now: float) -> None:
        """Write the log and show the progress line when it is time."""
        cursor, end = self.cursor, self.cursor.span.end
        due = cursor.step == end or cursor.step % self.job.settings.log_every == 0
        if not due and now - self.shown_at < 0.5:
            return
        speed = (cursor.tokens - self.logged_tokens) / max(now - self.logged_at, 1e-9)
        per_step = cursor.tokens / cursor.step
        mfu = None if self.peak is None or self.flops is None else speed / per_step * self.flops / self.peak
        means = {name: sum(step[name] for step in cursor.since) / len(cursor.since) for name in cursor.since[-1]}
        entry = log.record(cursor.step, cursor.tokens, means, rate, norm, now, speed, mfu)
        if due:
            cursor.log.append(entry)
            cursor.since = []
            self.logged_at, self.logged_tokens = now, cursor.tokens
        pace = self.clock.pace
        left = None if pace is None else pace * (end - cursor.step)
        self.progress(log.line(entry, end, left, self.around.meter, self.job.settings), cursor.step / end)
        self.shown_at = now
