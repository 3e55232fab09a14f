"""What a language model is, before any weight exists: one frozen configuration whose parts are chosen by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mixer = Literal["attention"]
Position = Literal["rope", "learned", "none"]
FeedForward = Literal["swiglu", "gelu"]
Norm = Literal["rmsnorm", "layernorm"]
LARGEST, LAYERS = 1 << 28, 10_000
"""No width, vocabulary or context is larger, and no model deeper: a size beyond is a slip, and would fill the memory."""

Count = Annotated[int, Field(gt=0, le=LARGEST)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RopeScaling(BaseModel):
    """Llama 3's stretching of rotary frequencies (arXiv 2407.21783): long waves are slowed by `factor`, short ones kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: Positive
    low_frequency: Positive = 1.0
    high_frequency: Positive = 4.0
    original_context: Count = 8192

    @model_validator(mode="after")
    def _ordered(self) -> RopeScaling:
        if self.high_frequency <= self.low_frequency:
            raise ValueError(f"high_frequency {self.high_frequency:g} must be above low_frequency {self.low_frequency:g}")
        return self


class ModelConfig(BaseModel):
    """A decoder-only Transformer. Widths are in elements, `context` in tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary: Count
    """Rows of the embedding."""
    width: Count
    """Of the residual stream."""
    layers: Annotated[int, Field(gt=0, le=LAYERS)]
    heads: Count
    kv_heads: Count = 0  # type: ignore[assignment]
    """Key-value heads, shared by groups of query heads (arXiv 2305.13245). As many as `heads` when not given."""
    head_size: Count = 0  # type: ignore[assignment]
    """`width / heads` when not given."""
    feed_forward_width: Count = 0  # type: ignore[assignment]
    """8/3 of the width rounded up to 64 for swiglu, 4 times the width otherwise, when not given."""
    context: Count = 1024

    mixer: Mixer | tuple[Mixer, ...] = "attention"
    """What mixes tokens: one for all layers, or one for each."""
    position: Position = "rope"
    feed_forward: FeedForward = "swiglu"
    norm: Norm = "rmsnorm"

    rope_base: Positive = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_epsilon: Positive = 1e-5
    tied: bool = True
    """The head is the embedding's transpose."""
    attention_bias: bool = False
    """Query, key and value projections have a bias (Qwen2)."""
    head_norm: bool = False
    """Queries and keys are normalised per head (Qwen3)."""

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: object) -> object:
        """Fill in the widths that follow from others."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        width, heads = values.get("width"), values.get("heads")
        if isinstance(heads, int) and not values.get("kv_heads"):
            values["kv_heads"] = heads
        if isinstance(width, int) and isinstance(heads, int) and heads > 0 and not values.get("head_size"):
            values["head_size"] = width // heads
        if isinstance(width, int) and not values.get("feed_forward_width"):
            gated = values.get("feed_forward", "swiglu") == "swiglu"
            values["feed_forward_width"] = -(-width * 8 // 3 // 64) * 64 if gated else 4 * width
        return values

    @model_validator(mode="after")
    def _agree(self) -> ModelConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads: {self.heads} heads, {self.kv_heads} kv_heads")
        if self.heads * self.head_size > LARGEST:
            raise ValueError(f"{self.heads} heads of {self.head_size} are wider than {LARGEST:,}")
        if self.position == "rope" and self.head_size % 2:
            raise ValueError(f"head_size must be even with rope, got {self.head_size}")
        if isinstance(self.mixer, tuple) and len(self.mixer) != self.layers:
            raise ValueError(f"mixer names {len(self.mixer)} layers, the model has {self.layers}")
        return self

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """The mixer of each layer."""
        return self.mixer if isinstance(self.mixer, tuple) else (self.mixer,) * self.layers
