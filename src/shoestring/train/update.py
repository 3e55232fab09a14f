"""The pieces of a step: the gradients of a batch, and the move of the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shoestring.data.batch import Batch, parts
from shoestring.train.loss import Loss, added
from shoestring.train.parallel.layout import DATA, apart, size, sums, whole
from shoestring.train.parts import Job, Parts
from shoestring.train.prepare import precision

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def gradients(job: Job, run: Parts, batch: Batch) -> Loss:
    """Add up the gradients of the batch's parts, and divide them once by what all of them counted."""
    losses, ranks = [], size(job.mesh, *DATA)
    for part in parts(batch, -(-job.plan.micro_batches // ranks)):
        with precision(job.settings, job.device):
            loss = job.objective(run.model, part)
        loss.total.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detached())
    loss = everywhere(added(losses), job.mesh)
    for found in apart([p.grad for p in run.learned.values() if p.grad is not None]):
        torch._foreach_div_(found, loss.count.clamp(min=1) / ranks)  # they are means over the ranks
    return loss


def everywhere(loss: Loss, mesh: DeviceMesh | None) -> Loss:
    """A rank's loss together with those of all others."""
    if mesh is None:
        return loss
    values = torch.stack([value.double() for value in (loss.total, loss.count, *loss.figures.values())])
    total, count, *figures = sums(values, mesh).unbind()
    return Loss(total, count, dict(zip(loss.figures, figures)))


def move(job: Job, run: Parts, rate: float) -> Tensor:
    """Clip, and move the weights at a learning rate; gradients are then gone. The gradient's norm, before it was clipped."""
    step = run.cursor.launched
    for callback in run.callbacks:
        callback.before_step(run.model, run.optimizer, step)
    norm = clip([p.grad for p in run.learned.values() if p.grad is not None], job.settings.clip)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["relative"]
    run.optimizer.step()
    for callback in run.callbacks:
        callback.after_step(run.model, run.optimizer, step)
    run.optimizer.zero_grad(set_to_none=True)
    return norm


def clip(gradients: list[Tensor], limit: float) -> Tensor:
    """Cut the norm of the whole gradient to a limit, 0 for none; the norm it had."""
    lists = apart(gradients)
    norms = [whole(torch.nn.utils.get_total_norm(each)) for each in lists]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if limit not in (0, math.inf):
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for each in lists:
            torch._foreach_mul_(each, factor)
    return norm
