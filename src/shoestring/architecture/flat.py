"""The flat spelling of a model: one dictionary of plain settings for all layers, as recipes and most saved models say it.

    {width: 256, layers: 12, heads: 8, mixer: attention, feed_forward: swiglu}

Layers that differ in more than the mixer's kind are spelled out one by one (`ModelConfig.layers`).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from shoestring.architecture.feedforward import FEED_FORWARDS, SwiGLU
from shoestring.architecture.layer import MIXERS, Layer
from shoestring.architecture.norm import NORMS, LayerNorm, RMSNorm
from shoestring.architecture.rope import RopeScaling
from shoestring.architecture.settings import LAYERS, Count, Derived, Positive, Settings
from shoestring.choice import Choice, OneOf, Table

POSITIONS: Table[None] = Table(
    "ModelConfig.position",
    Choice("rope", None, "queries and keys turn by an angle that grows with position", "P2", "2104.09864"),
    Choice("learned", None, "a vector learned for each position", "P1"),
    Choice("none", None, "order is known from the causal mask alone", "P1", "2305.19466"),
)
MixerName = Annotated[str, OneOf(MIXERS)]


class Flat(Settings):
    """A decoder-only Transformer whose layers share their settings. Widths are in elements, `context` in tokens."""

    vocabulary: Count
    """Rows of the embedding."""
    width: Count
    """Of the residual stream."""
    layers: Annotated[int, Field(gt=0, le=LAYERS)]
    """Blocks, one after the other."""
    heads: Count
    """Query heads of a layer's attention."""
    kv_heads: Derived = 0
    """Key-value heads, shared by groups of query heads (arXiv 2305.13245). As many as `heads` when not given."""
    head_size: Derived = 0
    """`width / heads` when not given."""
    feed_forward_width: Derived = 0
    """8/3 of the width rounded up to 64 for swiglu, 4 times the width otherwise, when not given."""
    context: Count = 1024
    """Tokens that it attends over at the most."""

    mixer: MixerName | tuple[MixerName, ...] = "attention"
    """What mixes tokens: one for all layers, or one for each."""
    position: Annotated[str, OneOf(POSITIONS)] = "rope"
    """How it knows the order of tokens: by rotation (arXiv 2104.09864), a vector for each position, or the causal mask alone."""
    feed_forward: Annotated[str, OneOf(FEED_FORWARDS)] = SwiGLU().kind
    """What each token passes through: three matrices, one of them a gate (arXiv 2002.05202), or two as in GPT-2."""
    norm: Annotated[str, OneOf(NORMS)] = RMSNorm().kind
    """Before each part: divide by the root mean square (arXiv 1910.07467), or subtract the mean first (arXiv 1607.06450)."""

    rope_base: Positive = 10_000.0
    """Rotary pair i of a head turns by base^(-2i / head_size) radians a token."""
    rope_scaling: RopeScaling | None = None
    """Llama 3's stretching of slow rotations for longer texts (arXiv 2407.21783)."""
    norm_epsilon: Positive = 1e-5
    """Added to the mean square before its root is taken."""
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
        kind = values.get("feed_forward", SwiGLU().kind)
        if isinstance(width, int) and not values.get("feed_forward_width") and kind in FEED_FORWARDS:
            values["feed_forward_width"] = FEED_FORWARDS[kind].usual(width)
        return values

    @model_validator(mode="after")
    def _agree(self) -> Flat:
        if isinstance(self.mixer, tuple) and len(self.mixer) != self.layers:
            raise ValueError(f"mixer names {len(self.mixer)} layers, the model has {self.layers}")
        return self

    @property
    def layer_norm(self) -> RMSNorm | LayerNorm:
        """The norm of all layers."""
        return NORMS[self.norm].of(self)

    def unfolded(self) -> dict[str, Any]:
        """The settings of a `ModelConfig` that says the same."""
        kinds = self.mixer if isinstance(self.mixer, tuple) else (self.mixer,) * self.layers
        norm, feed_forward = self.layer_norm, FEED_FORWARDS[self.feed_forward].of(self)
        each = {kind: Layer(mixer=MIXERS[kind].of(self), feed_forward=feed_forward, norm=norm) for kind in dict.fromkeys(kinds)}
        return {
            "vocabulary": self.vocabulary,
            "width": self.width,
            "context": self.context,
            "layers": tuple(each[kind] for kind in kinds),
            "final_norm": norm,
            "learned_positions": self.position == "learned",
            "tied": self.tied,
        }
