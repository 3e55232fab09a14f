"""Conversations to learn from: read from files of rows, and dealt out in batches.

B sequences, T tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoestring.data.batch import IGNORED
from shoestring.errors import FileError, ShoestringError
from shoestring.tune.chat import Conversation
from shoestring.tune.forms import Messages, accepted, form_of, read_row

if TYPE_CHECKING:
    from shoestring.data.batch import Batch


def holds_messages(path: Path | str) -> bool:
    """Whether a file's first row is chat data, not plain text."""
    from shoestring.data.rows import holds_records, records

    if not Path(path).is_file() or not holds_records(path):
        return False
    return form_of(next(records(path), ("", None))[1]) is not None


def read_messages(path: Path | str) -> list[tuple[str, Messages]]:
    """The conversations of a file of rows (docs/tune.md has the forms), each with its place for errors.

    Raises:
        FileError: names the file, the line or row, and what is wrong with it.
    """
    from shoestring.data import records

    found = [(where, read_row(record, where)) for where, record in records(path)]
    if not found:
        raise FileError(f"{path}: holds no conversations; each row needs {accepted()}")
    return found


class Conversations:
    """Batches of conversations, padded to their longest; which ones depends on (seed, epoch, step) only."""

    def __init__(self, conversations: list[Conversation], batch: int, context: int, seed: int, end: int) -> None:
        """Renderings longer than `context` predictions lose their end; those that lose every answer are left out.

        Raises:
            ShoestringError: none is left.
        """
        rows = [row for conversation in conversations for row in conversation.renderings() if row.counted.any()]
        self.kept = [row for row in rows if row.counted[1 : context + 1].any()]
        self.dropped = len(rows) - len(self.kept)
        self.empty = sum(conversation.empty for conversation in conversations)
        if not rows:
            raise ShoestringError("lora.data: all answers are empty, so there is nothing to learn")
        if not self.kept:
            raise ShoestringError(f"lora.context: no answer lies within {context} tokens; raise it")
        self.batch_size, self.context, self.seed, self.end = batch, context, seed, end

    @property
    def windows(self) -> int:
        """Renderings of one epoch: a conversation has one, or one an answer."""
        return len(self.kept)

    @property
    def mean_length(self) -> float:
        """Predictions of a conversation, on average."""
        return sum(min(len(c.tokens) - 1, self.context) for c in self.kept) / len(self.kept)

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        import torch

        rows = [self._row(place) for place in range(step * self.batch_size, (step + 1) * self.batch_size)]
        length = min(self.context, max(len(row.tokens) - 1 for row in rows))
        tokens_BT = np.full((len(rows), length), self.end, dtype=np.int64)
        targets_BT = np.full_like(tokens_BT, IGNORED)
        for number, row in enumerate(rows):
            size = min(length, len(row.tokens) - 1)
            tokens_BT[number, :size] = row.tokens[:size]
            targets_BT[number, :size] = np.where(row.counted[1 : size + 1], row.tokens[1 : size + 1], IGNORED)
        return {"tokens": torch.from_numpy(tokens_BT), "targets": torch.from_numpy(targets_BT)}

    def _row(self, place: int) -> Conversation:
        epoch, within = divmod(place, self.windows)
        return self.kept[int(np.random.default_rng([self.seed, epoch]).permutation(self.windows)[within])]
