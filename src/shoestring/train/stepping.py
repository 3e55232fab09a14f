"""What one optimizer step does, from a batch to weights that have moved.

    plain:  gradients of the micro-batches add up -> callbacks -> clip -> optimizer -> callbacks

A step that takes gradients otherwise (a pipeline's, two passes for sharpness), moves the weights otherwise (inside the backward
pass, without any gradient) or keeps state of its own (a loss scale, in `Parts.more`) is another entry of the table, made of the
same pieces: `update.gradients`, `update.move`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shoestring.choice import Choice, Table

if TYPE_CHECKING:
    from torch import Tensor

    from shoestring.data.batch import Batch
    from shoestring.train.loss import Loss
    from shoestring.train.parts import Job, Parts

Stepper = Callable[["Job", "Parts", "Batch", float], "tuple[Loss, Tensor]"]
"""Job, parts, this rank's rows of the step's batch, learning rate -> the whole batch's loss, and the norm of its gradient.

The work is launched, not waited for: nothing in it may read a value from a GPU.
"""


def plain(job: Job, parts: Parts, batch: Batch, rate: float) -> tuple[Loss, Tensor]:
    """Back-propagate the batch, then let the optimizer move the weights."""
    from shoestring.train import update

    loss = update.gradients(job, parts, batch)
    return loss, update.move(job, parts, rate)


PLAIN = Choice("plain", plain, "back-propagates the micro-batches, clips, lets the optimizer move the weights", "")
STEPPERS: Table[Stepper] = Table("Training.stepper", PLAIN)
