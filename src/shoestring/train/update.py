"""The pieces of a step: the gradients of a batch, and the move of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from shoestring.data.batch import Batch, parts
from shoestring.train.loss import Loss, added
from shoestring.train.parts import Job, Parts
from shoestring.train.prepare import precision


def gradients(job: Job, run: Parts, batch: Batch) -> Loss:
    """Add up the gradients of the batch's parts, and divide them once by what all of them counted."""
    losses = []
    for part in parts(batch, job.plan.micro_batches):
        with precision(job.settings, job.device):
            loss = job.objective(run.model, part)
        loss.total.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detached())
    whole = added(losses)
    found = [p.grad for p in run.learned.values() if p.grad is not None]
    torch._foreach_div_(found, whole.count.clamp(min=1))
    return whole


def move(job: Job, run: Parts, rate: float) -> Tensor:
    """Clip, and move the weights at a learning rate; gradients are then gone. The gradient's norm, before it was clipped."""
    step = run.cursor.launched
    for callback in run.callbacks:
        callback.before_step(run.model, run.optimizer, step)
    norm = clip(list(run.learned.values()), job.settings.clip)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["relative"]
    run.optimizer.step()
    for callback in run.callbacks:
        callback.after_step(run.model, run.optimizer, step)
    run.optimizer.zero_grad(set_to_none=True)
    return norm


def clip(parameters: list[torch.nn.Parameter], limit: float) -> Tensor:
    """Cut the norm of the whole gradient to a limit, 0 for none; the norm it had."""
    if limit in (0, math.inf):
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return torch.nn.utils.clip_grad_norm_(parameters, limit)
