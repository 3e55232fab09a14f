"""Softmax attention whose query heads share key-value heads in groups: MHA, GQA (arXiv 2305.13245) and MQA in one."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from shoestring.architecture.norm import Norm
from shoestring.architecture.part import Part, StateShape
from shoestring.architecture.rope import Rope
from shoestring.architecture.settings import LARGEST, Count, Derived
from shoestring.architecture.slot import Slot, matrix
from shoestring.choice import Choice


class Attention(Part):
    """Queries meet the keys of the tokens before them, and mix their values."""

    kind: Literal["attention"] = "attention"
    heads: Count
    """Query heads."""
    kv_heads: Derived = 0
    """Key-value heads, shared by groups of query heads. As many as `heads` when not given."""
    head_size: Derived = 0
    """Elements of a head; `width / heads` when not given."""
    window: Count | None = None
    """Tokens that a query sees, itself included; None: all before it (arXiv 2004.05150)."""
    rope: Rope | None = Rope()
    """How queries and keys turn with position; None: not at all."""
    bias: bool = False
    """Query, key and value projections have a bias (Qwen2)."""
    head_norm: Norm | None = None
    """Queries and keys are normalised per head (Qwen3, arXiv 2302.05442)."""

    @model_validator(mode="after")
    def _agree(self) -> Attention:
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads: {self.heads} heads, {self.kv_heads} kv_heads")
        if self.heads * self.head_size > LARGEST:
            raise ValueError(f"{self.heads} heads of {self.head_size} are wider than {LARGEST:,}")
        if self.rope is not None and self.head_size % 2:
            raise ValueError(f"head_size must be even with rope, got {self.head_size}")
        return self

    def resolved(self, width: int) -> Self:
        if self.kv_heads and self.head_size:
            return self
        given = {**dict(self), "kv_heads": self.kv_heads or self.heads, "head_size": self.head_size or width // self.heads}
        return type(self)(**given)

    def slots(self, width: int) -> tuple[Slot, ...]:
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        norms = [] if self.head_norm is None else ["query_norm", "key_norm"]
        return (
            matrix("query", queries, width, ("heads", "width"), bias=self.bias),
            matrix("key", keys, width, ("kv_heads", "width"), bias=self.bias),
            matrix("value", keys, width, ("kv_heads", "width"), bias=self.bias),
            *(self.head_norm.slot(name, self.head_size, "head_size") for name in norms if self.head_norm is not None),
            matrix("output", width, queries, ("width", "heads"), "mixed", fed_by="value", draw="into_stream"),
        )

    def state(self, width: int) -> StateShape:
        kept = (self.kv_heads, self.head_size)
        return StateShape(token={"keys": kept, "values": kept}, window=self.window)

    def flops(self, width: int, seen: float) -> float:
        return 4.0 * self.heads * self.head_size * (seen if self.window is None else min(seen, self.window))

    def elements(self, width: int) -> float:
        return 3.0 * width + 2.0 * self.head_size * (self.heads + self.kv_heads)

    def saved_bytes(self, width: int, halved: bool) -> float:
        """Counted from PyTorch's saved tensors, attention fused."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        return super().saved_bytes(width, halved) + (12.0 * queries + 4.0 * keys if halved else 12.0 * queries + 8.0 * keys)

    @property
    def rotary(self) -> tuple[Rope, int] | None:
        return None if self.rope is None else (self.rope, self.head_size)

    @classmethod
    def of(cls, flat: Any) -> Self:
        return cls(
            heads=flat.heads,
            kv_heads=flat.kv_heads,
            head_size=flat.head_size,
            rope=Rope(base=flat.rope_base, scaling=flat.rope_scaling) if flat.position == "rope" else None,
            bias=flat.attention_bias,
            head_norm=flat.layer_norm if flat.head_norm else None,
        )

    def flat(self) -> dict[str, Any]:
        rope = {} if self.rope is None else {"position": "rope", "rope_base": self.rope.base, "rope_scaling": self.rope.scaling}
        sizes = {"heads": self.heads, "kv_heads": self.kv_heads, "head_size": self.head_size}
        return {**sizes, **rope, "attention_bias": self.bias, "head_norm": self.head_norm is not None}


ATTENTION = Choice(
    "attention", Attention, "exact softmax attention in PyTorch's fused kernels", "A1", "2205.14135", saves=("memory",)
)
