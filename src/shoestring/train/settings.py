"""How training is done, whatever is trained and on whatever: settings that every user of the loop shares."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shoestring.architecture import ModelConfig
from shoestring.train.loss import CHUNK

Precision = Literal["fp32", "bf16"]
Compile = Literal["none", "regional"]
ScheduleName = Literal["wsd", "cosine"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Training(BaseModel):
    """Settings of the training loop. Their values are part of a run's identity, except the two intervals at the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["adamw"] = "adamw"
    betas: tuple[Share, Share] = (0.9, 0.95)
    epsilon: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Pulls matrices towards zero, decoupled from the gradient; embeddings, norms and biases are left alone."""
    schedule: ScheduleName = "wsd"
    decay_shape: Literal["linear", "sqrt"] = "sqrt"
    """How WSD falls at the end: a straight line, or 1 - sqrt (arXiv 2405.18392)."""
    floor: Share = 0.0
    """Share of the peak learning rate at which the schedule ends."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the whole gradient; 0 leaves it as it is."""
    precision: Precision = "fp32"
    """bf16: matrix products in bfloat16 (autocast); weights, gradients and optimizer state stay in float32."""
    compile: Compile = "none"
    """regional: torch.compile on each block, the embedding and the last norm."""
    loss_chunk: Annotated[int, Field(ge=0)] = CHUNK
    """Tokens whose logits exist at one time; 0: those of the whole micro-batch."""
    deterministic: bool = False
    """On a GPU: choose kernels whose sums have a fixed order, so that a rerun is equal bit for bit; slower. A CPU always does."""
    log_every: Annotated[int, Field(gt=0)] = 10
    """Steps between two records of the log."""
    checkpoint_every: Positive = 30.0
    """Seconds between two restart points; more when writing one takes over 2 % of that time."""


class TrainingPlan(BaseModel):
    """What a plan step decides and `pretrain` follows: the model, how long, in what portions, how fast."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig
    steps: Annotated[int, Field(gt=0)]
    batch: Annotated[int, Field(gt=0)]
    """Sequences of one optimizer step."""
    micro_batch: Annotated[int, Field(gt=0)]
    """Sequences in memory at one time; divides `batch`."""
    context: Annotated[int, Field(gt=0)]
    """Tokens of one sequence."""
    learning_rate: Positive
    """At the schedule's peak."""
    warmup: Annotated[int, Field(ge=0)]
    """Steps until the peak."""
    decay: Annotated[int, Field(ge=0)]
    """Last steps, in which the learning rate falls."""
    precision: Precision = "fp32"
    tokens: Annotated[int, Field(gt=0)]
    """Tokens read in all: steps x batch x context."""
    seconds: float
    """Predicted wall time of the training steps."""
    formulas: tuple[dict[str, object], ...] = ()
    """How each figure was found: name, value, formula, source."""
