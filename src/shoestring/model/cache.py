"""Decoding state: what a model keeps of the tokens it has read, so that the next one costs one token's work.

Rows of a batch may differ in length. Entry s of a row is visible to a query at position p when s <= p; what padding wrote
beyond a row's length is overwritten before it can be seen. Each mixer has its own layer state behind one interface.

B batch, H key-value heads, S cache slots, T new tokens, D head size.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.architecture import ModelConfig, Part


class LayerState(Protocol):
    """What one layer keeps."""

    def reorder(self, rows: Tensor) -> None:
        """Keep only the given rows, in the given order."""

    def resize(self, slots: int) -> None:
        """Make room for so many tokens a row, not fewer than are held."""

    def join(self, other: Any) -> None:
        """Append the rows of another state of this layer with as many slots."""


class KeysValues:
    """Keys and values of one attention layer, (B, H, S, D) each."""

    def __init__(self, part: Part, width: int, batch: int, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        heads, size = part.state(width).token["keys"]
        shape = (batch, heads, slots, size)
        self.keys_BHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.values_BHSD = torch.zeros(shape, device=device, dtype=dtype)

    def write(self, keys_BHTD: Tensor, values_BHTD: Tensor, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values at their positions; all keys and values so far."""
        index = positions_BT[:, None, :, None].expand_as(keys_BHTD)
        self.keys_BHSD.scatter_(2, index, keys_BHTD.to(self.keys_BHSD.dtype))
        self.values_BHSD.scatter_(2, index, values_BHTD.to(self.values_BHSD.dtype))
        return self.keys_BHSD, self.values_BHSD

    def reorder(self, rows: Tensor) -> None:
        self.keys_BHSD, self.values_BHSD = self.keys_BHSD[rows], self.values_BHSD[rows]

    def resize(self, slots: int) -> None:
        more = slots - self.keys_BHSD.shape[2]
        self.keys_BHSD, self.values_BHSD = (F.pad(kept, (0, 0, 0, more)) for kept in (self.keys_BHSD, self.values_BHSD))

    def join(self, other: KeysValues) -> None:
        self.keys_BHSD = torch.cat((self.keys_BHSD, other.keys_BHSD))
        self.values_BHSD = torch.cat((self.values_BHSD, other.values_BHSD))


class Cache:
    """The decoding state of a whole model: a layer state each, and how many tokens each row holds."""

    def __init__(self, model: nn.Module, batch: int, slots: int) -> None:
        """
        Args:
            model: a `Transformer`.
            batch: rows.
            slots: tokens a row can hold at the most.
        """
        config: ModelConfig = model.config  # type: ignore[assignment]
        weight = next(model.parameters())
        self.slots = slots
        self.lengths_B = torch.zeros(batch, dtype=torch.long, device=weight.device)
        self.layers = [
            KeysValues(layer.mixer, config.width, batch, slots, weight.device, weight.dtype) for layer in config.layers
        ]

    def positions(self, count: int) -> Tensor:
        """Where the next `count` tokens of each row go, (B, count)."""
        return self.lengths_B[:, None] + torch.arange(count, device=self.lengths_B.device)

    def advance(self, counts_B: Tensor | int) -> None:
        """Note that each row has grown by so many tokens (not by its padding). A forward pass doesn't do this itself."""
        self.lengths_B = self.lengths_B + counts_B

    def reorder(self, rows: Tensor) -> None:
        """Keep only the given rows, in the given order: finished ones leave the batch."""
        self.lengths_B = self.lengths_B[rows]
        for layer in self.layers:
            layer.reorder(rows)

    def resize(self, slots: int) -> None:
        """Make room for so many tokens a row; fewer than a row holds would lose some."""
        if slots == self.slots:
            return
        for layer in self.layers:
            layer.resize(slots)
        self.slots = slots

    def join(self, other: Cache) -> None:
        """Append the rows of another cache of the same model: new ones enter the batch. The smaller of the two grows."""
        slots = max(self.slots, other.slots)
        self.resize(slots)
        other.resize(slots)
        self.lengths_B = torch.cat((self.lengths_B, other.lengths_B))
        for layer, more in zip(self.layers, other.layers):
            layer.join(more)
