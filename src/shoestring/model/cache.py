"""Decoding state: what a model keeps of the tokens it has read, so that the next one costs one token's work.

It is allocated once, a place for each row. Rows take places from the front; joining and leaving change numbers, not tensors: a
row that leaves is replaced by the last one, whose state alone is copied. Entry s of a row is visible to a query at position p
when s <= p, so what padding or a wrong guess wrote beyond a row's length is overwritten before it can be seen.

R places, B rows of a pass, S entries of a row that attention reads, T new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from shoestring.architecture import ModelConfig, StateShape

PAGE = 64
"""Places have room for whole pages of so many tokens, and attention reads whole pages."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one pass: fixed shapes, so that a pass can be captured.

    Attributes:
        places: of the rows, one after the other.
        start_B: tokens that each row holds before the pass.
        count_B: tokens of the pass that count for each row; what lies beyond is padding, and a row of 0 is idle.
        length: entries that attention reads of each row.
    """

    places: slice
    start_B: Tensor
    count_B: Tensor
    length: int

    def positions(self, count: int) -> Tensor:
        """Where the next `count` tokens of each row stand, (B, count)."""
        return self.start_B[:, None] + torch.arange(count, device=self.start_B.device)


class LayerState:
    """What one layer keeps, as its mixer declares it.

    Attributes:
        token: what is kept for each token, (R, ..., capacity, D), as attention reads it.
        row: what is kept for each sequence, (R, ...).
    """

    def __init__(self, shape: StateShape, places: int, capacity: int, like: Tensor) -> None:
        self.token = {name: like.new_zeros(places, *each[:-1], capacity, each[-1]) for name, each in shape.token.items()}
        self.row = {name: like.new_zeros(places, *each) for name, each in shape.row.items()}

    def extend(self, rows: Rows, positions_BT: Tensor, **new: Tensor) -> Iterator[Tensor]:
        """Put what is kept of new tokens, (B, ..., T, D), at their positions; all so far, (B, ..., S, D), one name at a time."""
        index: Tensor | None = None
        for name, values in new.items():
            kept = self.token[name][rows.places].narrow(-2, 0, rows.length)
            if index is None or index.shape != values.shape:
                index = positions_BT.view(len(values), *[1] * (values.ndim - 3), -1, 1).expand_as(values)
            yield kept.scatter_(-2, index, values if values.dtype == kept.dtype else values.to(kept.dtype))

    def copy(self, source: int, target: int, length: int) -> None:
        """Make one place hold what another does: to fork a row, to fill a gap, to keep a snapshot."""
        for kept in self.token.values():
            kept[target, ..., :length, :] = kept[source, ..., :length, :]
        for kept in self.row.values():
            kept[target] = kept[source]

    def grow(self, capacity: int) -> None:
        """Make room for so many tokens in each place."""
        for name, kept in self.token.items():
            self.token[name] = F.pad(kept, (0, 0, 0, capacity - kept.shape[-2]))


class Cache:
    """The decoding state of a whole model.

    Attributes:
        layers: a state each.
        held_R: tokens that each place holds.
        capacity: tokens that a place has room for.
    """

    def __init__(
        self, config: ModelConfig, like: Tensor, places: int, capacity: int, state: Callable[..., LayerState] = LayerState
    ) -> None:
        """
        Args:
            like: a tensor of the device and dtype that the state is to have.
            places: rows at the most.
            capacity: tokens of each; rounded up to whole pages.
            state: what keeps a layer's, given its shape, places, capacity and `like`.
        """
        self.capacity = pages(capacity)
        self.held_R = torch.zeros(places, dtype=torch.long, device=like.device)
        self.layers = [state(layer.mixer.state(config.width), places, self.capacity, like) for layer in config.layers]

    @classmethod
    def of(cls, model: Any, places: int, capacity: int) -> Cache:
        """Of a `Transformer`, in its dtype, where it is."""
        return cls(model.config, next(model.parameters()), places, capacity)

    def rows(self, count: int | Tensor, first: int = 0, length: int | None = None) -> Rows:
        """Rows that the next pass extends by `count` tokens each; all of them when `count` is a number.

        Args:
            length: the most tokens that any holds after the pass, when the caller knows; else it is asked of the device.
        """
        number = len(self.held_R) - first if isinstance(count, int) else len(count)
        start_B = self.held_R[first : first + number].clone()
        count_B = torch.full_like(start_B, count) if isinstance(count, int) else count
        if length is None:
            length = int(start_B.max() + count_B.max())
        return Rows(slice(first, first + number), start_B, count_B, min(pages(length), self.capacity))

    def advance(self, rows: Rows, taken_B: Tensor | None = None) -> None:
        """Note that the rows of a pass have grown; by less than it read where guesses were wrong."""
        self.held_R[rows.places] = rows.start_B + (rows.count_B if taken_B is None else taken_B)

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Make one place hold what another does."""
        for layer in self.layers:
            layer.copy(source, target, self.capacity if length is None else length)
        self.held_R[target] = self.held_R[source]

    def reserve(self, length: int) -> None:
        """Have room for so many tokens in each place: at least twice of what there was, so that growing stays rare."""
        if length > self.capacity:
            self.capacity = pages(max(length, 2 * self.capacity))
            for layer in self.layers:
                layer.grow(self.capacity)


def pages(tokens: int) -> int:
    """Tokens rounded up to whole pages."""
    return -(-tokens // PAGE) * PAGE
