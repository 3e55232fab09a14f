"""The training loop: the only one. Pretraining, tuning, distillation and recovery differ in what they hand to it.

What a step does is a `stepping` function. Losses are read one step late, so that a GPU never waits for the host. A run is a
function of model, batches, settings and random generators; when restart points are written changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import torch
from torch import nn

from shoestring.data.batch import Batch, on
from shoestring.data.loader import Batches, ahead
from shoestring.progress import showing
from shoestring.train import resume
from shoestring.train.journal import Journal
from shoestring.train.loss import Objective, next_token
from shoestring.train.optimizers import OPTIMIZERS, trainable
from shoestring.train.parallel.layout import rows, share
from shoestring.train.parts import Around, Cursor, Job, Parts
from shoestring.train.prepare import kernels, prepare
from shoestring.train.schedule import Plan, Span
from shoestring.train.settings import Training
from shoestring.train.stepping import STEPPERS

Log = list[dict[str, Any]]
"""Records of a run, as training.jsonl keeps them."""


def train(
    model: nn.Module,
    batches: Batches | Callable[[int], Batch],
    plan: Plan,
    objective: Objective | None = None,
    settings: Training | None = None,
    around: Around | None = None,
) -> Log:
    """Train the parameters of `model` that have `requires_grad`, in place, on the device they are on.

    Args:
        batches: a `data.Loader` (read ahead in a thread), or a function from the step's number to the whole batch of it.
        objective: model and batch -> loss, summed and counted; next-token cross-entropy when not given.

    Returns:
        The records of the log, one for every `settings.log_every` steps and the last one.

    Raises:
        SettingError: a setting that does not fit.
        ShoestringError: loss or gradient stopped being finite.
    """
    settings, around = settings or Training(), around or Around()
    device = next(iter(trainable(model).values())).device
    job = Job(objective or next_token(settings.loss_chunk), plan, settings, device, around.mesh)
    prepare(model, settings, around.mesh)
    if around.mesh is not None and (number := share(around.mesh)):
        torch.manual_seed(torch.initial_seed() + number)  # other rows, other dropout
    parts = begin(job, model, around)
    known = resume.identity(job, parts)
    if around.scratch is not None and resume.load(around.scratch, known, parts.stateful(), around.note):
        around.note(f"training goes on at step {parts.cursor.step} of {parts.cursor.span.end}")
    step, was_training, stream = STEPPERS[settings.stepper], model.training, source(batches, parts.cursor, device)
    model.train()
    try:
        with showing(around.progress) as progress, kernels(settings, device), closing(stream):
            journal = Journal(job, parts, around, progress)
            for whole in stream:
                batch = rows(whole, around.mesh)
                rate = plan.rate(settings, parts.cursor.span.position(parts.cursor.launched))
                loss, norm = step(job, parts, batch, rate)
                journal.enter(loss, norm, rate, batch)
                if journal.left() == 0:
                    break
                if around.scratch is not None:
                    journal.save_when_due(around.scratch, known)
            journal.read()
    finally:
        model.train(was_training)
        parts.optimizer.zero_grad(set_to_none=True)
    return parts.cursor.log


def begin(job: Job, model: nn.Module, around: Around) -> Parts:
    """A run before its first step."""
    optimizer = OPTIMIZERS[job.settings.optimizer].make(model, job.settings, job.plan.learning_rate)
    for group in optimizer.param_groups:
        group["relative"] = group["lr"] / job.plan.learning_rate
    return Parts(model, trainable(model), optimizer, Cursor(Span(job.plan.steps)), around.callbacks)


def source(batches: Batches | Callable[[int], Batch], cursor: Cursor, device: torch.device) -> Generator[Batch, None, None]:
    """The batches of the steps that are left; those of a loader are read ahead in a thread."""
    start, stop = cursor.step, cursor.span.end
    if callable(batches):
        for step in range(start, stop):
            yield on(batches(step), device)
    else:
        yield from ahead(batches, start, stop, device)
