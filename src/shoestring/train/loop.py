"""The training loop: the only one. Pretraining, tuning, distillation and recovery differ in what they hand to it.

One optimizer step:  gradients of the micro-batches add up -> callbacks -> clip -> optimizer -> callbacks. Losses are read one
step late, so that a GPU never waits for the host. A run is a function of model, batches, settings and random generators; when
restart points are written changes nothing.

B sequences, T tokens.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.architecture import counts
from shoestring.data.batch import Batch, parts
from shoestring.data.loader import Loader
from shoestring.errors import DiskFull, SettingError, ShoestringError
from shoestring.measure import Meter
from shoestring.progress import Progress, silent
from shoestring.train import apply, restart
from shoestring.train import progress as say
from shoestring.train.batches import source
from shoestring.train.callbacks import Callback
from shoestring.train.clock import Clock, Mark, Timer
from shoestring.train.loss import Loss, Objective, added, next_token
from shoestring.train.optimizers import OPTIMIZERS, trainable
from shoestring.train.restart import Place
from shoestring.train.schedule import Course, Schedule, bring_forward, planned
from shoestring.train.settings import Training

BEHIND = 1
"""Steps that a GPU is given before the host reads the loss of the one before."""
SAVING = 0.02
"""Largest share of the time that writing restart points may take."""


def train(
    model: nn.Module,
    batches: Loader | Callable[[int], Batch],
    objective: Objective | None = None,
    settings: Training | None = None,
    *,
    steps: int,
    learning_rate: float,
    warmup: int = 0,
    decay: int = 0,
    micro_batches: int = 1,
    scratch: Path | None = None,
    meter: Meter | None = None,
    progress: Progress = silent,
    note: Callable[[str], None] = lambda text: None,
    callbacks: Sequence[Callback] = (),
    time_limit: float | None = None,
    flops_per_step: float | None = None,
) -> list[dict[str, Any]]:
    """Train the parameters of `model` that have `requires_grad`, in place, on the device they are on.

    Args:
        batches: a `data.Loader` (read ahead in a thread), or a function from the step's number to the whole batch of it.
        objective: model and batch -> loss, summed and counted; next-token cross-entropy when not given.
        steps: optimizer steps. learning_rate: at the schedule's peak. warmup, decay: first and last steps of the schedule.
        micro_batches: parts of a batch that pass one after the other; their gradients add up to the batch's.
        scratch: a folder for restart points; a run that finds one of its own there goes on from it, bit for bit.
        meter: is told the operations; its hardware gives MFU, joules and money of the progress line.
        time_limit: seconds, those of a killed run's earlier processes included. When the steps would not fit, the decay is
            brought forward so that training ends inside it.
        flops_per_step: operations of one step; a Transformer's training cost when not given.

    Returns:
        The records of the log, one for every `settings.log_every` steps and the last one.

    Raises:
        SettingError: a setting that does not fit.
        ShoestringError: loss or gradient stopped being finite.
    """
    run = _Run(model, objective, settings or Training(), micro_batches, meter, progress, note, callbacks, time_limit)
    run.schedule = planned(run.settings, steps, learning_rate, warmup, decay)
    run.flops = flops_per_step
    run.begin(scratch)
    was_training = model.training
    model.train()
    try:
        with apply.applied(model, run.settings, run.device), closing(source(batches, run.place, run.device)) as stream:
            for batch in stream:
                run.step(batch)
                if run.finished():
                    break
            run.read(0)
    finally:
        model.train(was_training)
        run.optimizer.zero_grad(set_to_none=True)
    return run.place.log


class _Run:
    """A training run under way."""

    schedule: Schedule
    flops: float | None
    """Operations of one step."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective | None,
        settings: Training,
        micro_batches: int,
        meter: Meter | None,
        progress: Progress,
        note: Callable[[str], None],
        callbacks: Sequence[Callback],
        time_limit: float | None,
    ) -> None:
        if micro_batches < 1:
            raise SettingError(f"training: micro_batches must be at least 1, got {micro_batches}")
        self.model, self.settings, self.micro_batches = model, settings, micro_batches
        self.meter, self.progress, self.note, self.callbacks = meter, progress, note, callbacks
        self.time_limit = math.inf if time_limit is None else time_limit
        self.parameters = list(trainable(model).values())
        self.device = self.parameters[0].device
        self.objective = objective or next_token(settings.loss_chunk)
        self.unread: deque[tuple[Tensor, Mark, int, float]] = deque()
        self.peak = say.peak(None if meter is None else meter.hardware, settings)
        self.counted_tokens = 0
        self.last_save_took = 0.0  # seconds
        self.disk_full = False

    def begin(self, scratch: Path | None) -> None:
        """A fresh start, or the newest restart point."""
        self.optimizer = OPTIMIZERS[self.settings.optimizer](self.model, self.settings, self.schedule.peak)
        self.relative = [group["lr"] / self.schedule.peak for group in self.optimizer.param_groups]
        self.scratch = scratch
        self.identity = self._identity()
        found = None if scratch is None else restart.load(scratch, self.identity, self.model, self.optimizer, self.note)
        self.place = found or Place(Course(self.schedule.steps))
        if found is not None:
            self.note(f"training goes on at step {found.step} of {found.course.end}")
        self.launched = self.place.step
        self.clock = Clock(self.place.elapsed)
        self.saved_at = self.clock.elapsed
        self.logged_at, self.logged_tokens = self.clock.elapsed, self.place.tokens
        self.shown_at = -math.inf
        self.timer = Timer(self.device)

    def step(self, batch: Batch) -> None:
        """One optimizer step: launched, not waited for."""
        step = self.launched
        loss = self._gradients(batch)
        for callback in self.callbacks:
            callback.before_step(self.model, self.optimizer, step)
        norm = self._clip()
        rate = self.schedule.at(self.place.course.position(step))
        for group, relative in zip(self.optimizer.param_groups, self.relative):
            group["lr"] = rate * relative
        self.optimizer.step()
        for callback in self.callbacks:
            callback.after_step(self.model, self.optimizer, step)
        self.optimizer.zero_grad(set_to_none=True)
        self.launched += 1
        if self.flops is None:
            self.flops = counts.training_flops(self.model.config, batch["tokens"].numel(), batch["tokens"].shape[1])  # type: ignore[arg-type]
        if self.meter is not None:
            self.meter.count(flops=self.flops)
        self._remember(torch.stack((loss.mean.double(), norm.double())), batch["tokens"].numel(), rate)
        self.read(BEHIND if self.device.type == "cuda" else 0)

    def finished(self) -> bool:
        """Keep the time limit, write a restart point when it is time; True when no step is left."""
        course = self.place.course
        left = course.end - self.launched
        behind = len(self.unread)
        fitting = max(0, self.clock.steps_left(left + behind, self.time_limit) - behind)
        if fitting < left:
            self.place.course = bring_forward(self.schedule, course, self.launched, fitting)
            self.note(
                f"training ends at step {self.launched + fitting} instead of {course.end} to keep its limit of "
                f"{self.time_limit:.0f} s; the decay is brought forward"
            )
            left = fitting
        since = self.clock.elapsed - self.saved_at
        due = since >= self.settings.checkpoint_every and since * SAVING >= self.last_save_took
        if self.scratch is not None and left > 0 and due:
            self._save()
        return left <= 0

    def read(self, keep: int) -> None:
        """Read the losses of the steps that were launched, all but the newest `keep`."""
        while len(self.unread) > keep:
            values, mark, tokens, rate = self.unread.popleft()
            ended = self.timer.wait(mark)
            loss, norm = values.tolist()
            place = self.place
            self._check(loss, norm, place.step)
            self.clock.tick(ended)
            place.step += 1
            place.tokens += tokens
            place.losses.append(loss)
            self._report(norm, rate, self.clock.at(ended))

    def _gradients(self, batch: Batch) -> Loss:
        """Add up the gradients of the batch's parts, and divide them once by what all of them counted."""
        losses = []
        for part in parts(batch, self.micro_batches):
            with apply.precision(self.settings, self.device):
                loss = self.objective(self.model, part)
            loss.total.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detached())
        whole = added(losses)
        torch._foreach_div_([p.grad for p in self.parameters if p.grad is not None], whole.count.clamp(min=1))
        return whole

    def _clip(self) -> Tensor:
        """The gradient's norm, before it is cut to the largest allowed."""
        limit = self.settings.clip or math.inf
        if math.isinf(limit):
            return torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return torch.nn.utils.clip_grad_norm_(self.parameters, limit)

    def _remember(self, values: Tensor, tokens: int, rate: float) -> None:
        if self.device.type == "cuda":
            landed = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = landed.copy_(values, non_blocking=True)
        self.unread.append((values, self.timer.mark(), tokens, rate))

    def _check(self, loss: float, norm: float, step: int) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = "loss" if not math.isfinite(loss) else "gradient"
        points = [] if self.scratch is None else sorted(self.scratch.glob("step-*"))
        last = f"; the last restart point is {points[-1].name}" if points else ""
        raise ShoestringError(
            f"training: the {what} is not finite at step {step + 1} of {self.place.course.end}{last}; "
            f"lower learning_rate ({self.schedule.peak:g}) or raise warmup ({self.schedule.warmup})"
        )

    def _report(self, norm: float, rate: float, now: float) -> None:
        """Write the log and show the progress line when it is time."""
        place = self.place
        last = place.step == place.course.end
        due = last or place.step % self.settings.log_every == 0
        if not due and now - self.shown_at < 0.5:
            return
        seconds = max(now - self.logged_at, 1e-9)
        speed = (place.tokens - self.logged_tokens) / seconds
        tokens_per_step = place.tokens / place.step
        mfu = None if self.peak is None or self.flops is None else speed / tokens_per_step * self.flops / self.peak
        loss = sum(place.losses) / len(place.losses)
        entry = say.record(
            step=place.step, tokens=place.tokens, loss=loss, learning_rate=rate, norm=norm, seconds=now, rate=speed, mfu=mfu
        )
        if due:
            place.log.append(entry)
            place.losses = []
            self.logged_at, self.logged_tokens = now, place.tokens
        pace = self.clock.pace
        left = None if pace is None else pace * (place.course.end - place.step)
        line = say.line(entry, place.course.end, left, self.meter, self.settings)
        self.progress(line, place.step / place.course.end)
        self.shown_at = now

    def _save(self) -> None:
        assert self.scratch is not None
        self.read(0)
        before = self.clock.elapsed
        self.place.elapsed = before
        try:
            restart.save(self.scratch, self.identity, self.place, self.model, self.optimizer)
        except DiskFull as error:
            if not self.disk_full:
                self.note(f"training goes on without a new restart point: {error}")
            self.disk_full = True
        self.saved_at = self.clock.elapsed
        self.last_save_took = self.saved_at - before

    def _identity(self) -> str:
        """What a restart point must agree with to belong to this run."""
        settings = self.settings.model_dump(exclude={"log_every", "checkpoint_every"})
        plan = (self.schedule.steps, self.schedule.peak, self.schedule.warmup, self.schedule.decay, self.micro_batches)
        shapes = {name: list(parameter.shape) for name, parameter in trainable(self.model).items()}
        return json.dumps([settings, plan, shapes], sort_keys=True)
