"""What a plan step decides and `pretrain` follows."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shoestring.architecture import ModelConfig
from shoestring.train.precision import Precision

MICRO_TOKENS = {"cpu": 2048, "cuda": 32_768}
"""Tokens that pass at one time, at the most: a CPU gains nothing from more, a GPU little."""


class TrainingPlan(BaseModel):
    """The model, how long it trains, in what portions, how fast."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: ModelConfig
    """What is trained."""
    steps: Annotated[int, Field(gt=0)]
    """Optimizer steps."""
    batch: Annotated[int, Field(gt=0)]
    """Sequences of one optimizer step."""
    micro_batch: Annotated[int, Field(gt=0)]
    """Sequences in memory at one time; divides `batch`."""
    context: Annotated[int, Field(gt=0)]
    """Tokens of one sequence."""
    learning_rate: Annotated[float, Field(gt=0)]
    """At the schedule's peak."""
    warmup: Annotated[int, Field(ge=0)]
    """Steps until the peak."""
    decay: Annotated[int, Field(ge=0)]
    """Last steps, in which the learning rate falls."""
    precision: Precision = "fp32"
    """Of matrix products."""
    tokens: Annotated[int, Field(gt=0)]
    """Tokens read in all: steps x batch x context."""
    seconds: float
    """Predicted wall time of the training steps."""
    formulas: tuple[dict[str, object], ...] = ()
    """How each figure was found: name, value, formula, source."""
