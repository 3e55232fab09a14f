"""How training is done, whatever is trained and on whatever: settings that every user of the loop shares."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shoestring.choice import Choice, OneOf, Table
from shoestring.train.compiling import Compile
from shoestring.train.precision import Precision

OptimizerName = Annotated[str, OneOf("shoestring.train.optimizers:OPTIMIZERS")]
ScheduleName = Annotated[str, OneOf("shoestring.train.schedule:SCHEDULES")]
StepperName = Annotated[str, OneOf("shoestring.train.stepping:STEPPERS")]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

CHUNK = 16_384
"""Tokens whose logits exist at one time, unless set otherwise: on an H200 twice as many are no faster."""
CPU_CHUNK = 512
"""The most on a CPU: there the logits then stay in its cache (4096 x 4096 logits: 0.29 s against 0.39 s for all at once)."""


class Learning(BaseModel):
    """Settings of the training loop that a recipe may choose as well, wherever a technique takes them over.

    Their values are part of a run's identity, except the two intervals at the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    optimizer: OptimizerName = "adamw"
    """What makes a step of a gradient."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Pulls matrices towards zero, decoupled from the gradient; embeddings, norms and biases are left alone."""
    schedule: ScheduleName = "wsd"
    """How the learning rate goes."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the whole gradient; 0 leaves it as it is."""
    loss_chunk: Annotated[int, Field(ge=0)] = CHUNK
    """Tokens whose logits exist at one time; 0: those of the whole micro-batch."""
    deterministic: bool = False
    """On a GPU: choose kernels whose sums have a fixed order, so that a rerun is equal bit for bit; slower. A CPU always does."""
    log_every: Annotated[int, Field(gt=0)] = 10
    """Steps between two records of the log."""
    checkpoint_every: Positive = 30.0
    """Seconds between two restart points; more when writing one takes over 2 % of that time."""


class Training(Learning):
    """All settings of the training loop."""

    stepper: StepperName = "plain"
    """What one step does, from a batch to weights that have moved."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """How much of its running means of the gradient, and of the gradient's square, an optimizer keeps each step."""
    epsilon: Positive = 1e-8
    """Added to the root of the mean square that a step is divided by."""
    decay_shape: Literal["linear", "sqrt"] = "sqrt"
    """How WSD falls at the end: a straight line, or 1 - sqrt (arXiv 2405.18392)."""
    floor: Share = 0.0
    """Share of the peak learning rate at which the schedule ends."""
    precision: Precision = "fp32"
    """bf16: matrix products in bfloat16 (autocast); weights, gradients and optimizer state stay in float32."""
    compile: Compile = "none"
    """regional: torch.compile on each block, the embedding and the last norm."""


CLIP = Choice("1.0", None, "cuts the norm of the whole gradient to a largest value", row="T1", paper="1211.5063")
CHUNKED = Choice(
    str(CHUNK),
    None,
    "head, loss and gradient in chunks of tokens; no full logits",
    row="X6",
    paper="2410.10989",
    saves=("memory",),
)
FEATURES = (Table("Training.clip", CLIP), Table("Training.loss_chunk", CHUNKED))
