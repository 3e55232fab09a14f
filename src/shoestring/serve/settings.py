"""Limits and defaults of a server. Each is an option of `shoestring serve` too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """What a server takes on, and what it assumes when a request doesn't say."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    slots: int = Field(8, gt=0, le=4096)
    """Answers made together at the most."""
    waiting: int = Field(32, gt=0, le=100_000)
    """Requests that may wait for a slot; one more is refused with 429."""
    request_bytes: int = Field(1_000_000, gt=0, le=1 << 30)
    """The largest request body; a larger one is refused with 413."""
    max_tokens: int = Field(512, gt=0, lt=1 << 31)
    """Length of an answer when a request gives none (less where the context ends earlier)."""
    grace: float = Field(10.0, ge=0, le=86_400)
    """Seconds that answers at hand get when the server is told to stop."""
    head_seconds: float = Field(10.0, gt=0, le=3600)
    """How long a client may take to send the head of a request; its connection is closed then."""
    body_seconds: float = Field(30.0, gt=0, le=3600)
    """How long a client may take to send a request's body; it is refused with 408 then."""
    connections: int = Field(512, gt=0, le=1_000_000)
    """Open connections at the most, less where this process may open fewer files; one more is refused with 503."""
    api_key: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(None, repr=False)
    """What clients must send as `Authorization: Bearer KEY` to the addresses under /v1; nothing is asked when not given."""
    hosts: tuple[str, ...] | None = None
    """Names under which clients may reach the server, beside IP addresses and this machine's own; "*" is any name. A page
    whose name was bent to this machine's address is so kept out. None: `shoestring serve` allows those alone, an application
    from `build` does not look."""
    threads: int | None = Field(None, gt=0, le=4096)
    """Processor threads; None takes all that this process may use, or one when the machine is busy already."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto is the GPU when there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of weights and cache. "auto" is bf16 on a GPU and for int4 models, whose CPU kernel needs it, else fp32."""
