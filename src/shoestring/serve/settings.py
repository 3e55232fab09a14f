"""Limits and defaults of a server."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """What a server takes on, and what it assumes when a request doesn't say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots: int = Field(8, gt=0)
    """Answers made together at the most."""
    waiting: int = Field(32, gt=0)
    """Requests that may wait for a slot; one more is refused with 429."""
    request_bytes: int = Field(1_000_000, gt=0)
    """The largest request body; a larger one is refused with 413."""
    max_tokens: int = Field(512, gt=0)
    """Length of an answer when a request gives none (less where the context ends earlier)."""
    grace: float = Field(10.0, ge=0)
    """Seconds that answers at hand get when the server is told to stop."""
    threads: int | None = Field(None, gt=0)
    """Processor threads; None takes all that this process may use, or one when the machine is busy already."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of weights and cache. "auto" is bf16 on a GPU and for int4 models, whose CPU kernel needs it, else fp32."""
