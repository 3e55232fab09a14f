"""What all declarations of a model have in common: frozen settings that say their slots, and what they keep while decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Self

from pydantic import BeforeValidator

from shoestring.architecture.rope import Rope
from shoestring.architecture.settings import Settings
from shoestring.architecture.slot import Slot
from shoestring.choice import Table


@dataclass(frozen=True, slots=True)
class StateShape:
    """What a mixer keeps of the tokens it has read.

    Attributes:
        token: shapes of what is kept for each token, by name: keys (kv_heads, head_size).
        row: shapes of what is kept for each sequence, whatever its length: a recurrent state.
        window: tokens after which what is kept for one is no longer read; None, never.
    """

    token: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    row: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    window: int | None = None

    @property
    def per_token(self) -> int:
        """Numbers kept for a token."""
        return sum(prod(shape) for shape in self.token.values())

    @property
    def per_row(self) -> int:
        """Numbers kept for a sequence beside them."""
        return sum(prod(shape) for shape in self.row.values())


def one_of(table: Table[Any]) -> Any:
    """Marks a field that holds one of a table's classes: a mapping's `kind` says which, the first when it says none."""

    def made(value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        kind = value.get("kind", next(iter(table)))
        if kind not in table:
            raise ValueError(table.unknown(kind))
        return table[kind].model_validate(dict(value))

    return BeforeValidator(made)


class Part(Settings):
    """A mixer or a feed-forward: what stands between the residual stream and itself."""

    kind: str = ""

    def resolved(self, width: int) -> Self:
        """The same with those settings filled in that follow from the width of the stream."""
        return self

    def slots(self, width: int) -> tuple[Slot, ...]:
        """Its parameters in order of computation, named from the part on."""
        raise NotImplementedError

    def state(self, width: int) -> StateShape:
        """What it keeps while decoding."""
        return StateShape()

    def flops(self, width: int, seen: float) -> float:
        """Operations of one token beside the matrices, when it sees so many tokens: scores, scans."""
        return 0.0

    def elements(self, width: int) -> float:
        """Numbers of one token that go through element-wise operators, its norm and the residual sum included."""
        return 3.0 * width

    def saved_bytes(self, width: int, halved: bool) -> float:
        """Bytes that it saves of one token for the backward pass, its norm included, products in 16 bits when `halved`."""
        return (10.0 if halved else 12.0) * width

    @property
    def rotary(self) -> tuple[Rope, int] | None:
        """How its queries and keys turn with position, and how many elements of a head do; None: not at all."""
        return None

    @classmethod
    def of(cls, flat: Any) -> Self:
        """The part as the flat spelling of a model (`flat.Flat`) says it."""
        return cls()

    def flat(self) -> dict[str, Any]:
        """The settings of the flat spelling that say this part, as far as they can."""
        return {}
