"""Conversations to learn from: JSONL or Parquet with `messages`, as tokens of which only the assistant's count.

The tokenizer's chat form is what the model will see when it is asked; each answer is tokenised apart from what stands before
it, as it is when it is generated.

B sequences, T tokens.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoestring.errors import FileError, ShoestringError, file_error
from shoestring.tokenizer import Tokenizer
from shoestring.train import IGNORED

if TYPE_CHECKING:
    from shoestring.data.loader import Batch

ROLES = ("system", "user", "assistant", "tool")
Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Tokens of a conversation, and which of them are the assistant's."""

    tokens: np.ndarray
    counted: np.ndarray


def holds_messages(path: Path | str) -> bool:
    """Whether a file's first row is a conversation, not plain text."""
    path = Path(path)
    if not path.is_file() or not path.name.endswith((".jsonl", ".jsonl.xz", ".parquet")):
        return False
    first = next(iter(_records(path)), ("", None))[1]
    return isinstance(first, dict) and "messages" in first


def read_messages(path: Path | str) -> list[tuple[str, Messages]]:
    """The conversations of a .jsonl, .jsonl.xz or .parquet file, each with its place for errors.

    Raises:
        FileError: names the file, the line or row, and what is wrong with it.
    """
    path = Path(path)
    found = []
    for where, record in _records(path):
        messages = record.get("messages") if isinstance(record, dict) else None
        if not isinstance(messages, list) or not messages:
            raise FileError(f"{where}: needs `messages`, a list of objects with role and content")
        for message in messages:
            if not isinstance(message, dict) or message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise FileError(f"{where}: a message needs a role ({', '.join(ROLES)}) and a text as content, got {message!r}")
        if not any(message["role"] == "assistant" for message in messages):
            raise FileError(f"{where}: no message of the assistant, so nothing to learn; add one or remove the row")
        found.append((where, [{"role": m["role"], "content": m["content"]} for m in messages]))
    if not found:
        raise FileError(f"{path}: holds no conversations; each row needs `messages`")
    return found


def encode(tokenizer: Tokenizer, messages: Messages, where: str = "messages") -> Conversation:
    """A conversation up to its last answer; a counted end token follows where the chat form itself closes answers with none.

    Raises:
        FileError: a chat template that changes what it has said before as a conversation goes on.
    """
    tokens: list[int] = []
    counted: list[bool] = []
    said = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.chat(messages[:number], open_answer=True)
        after = tokenizer.chat(messages[: number + 1], open_answer=False)
        if not (before.startswith(said) and after.startswith(before)):
            raise FileError(
                f"{where}: the chat template rewrites earlier messages, so answers can't be told apart; use one that does not"
            )
        question = tokenizer.encode(before[len(said) :], special=True)
        answer = tokenizer.encode(after[len(before) :], special=True)
        tokens += question + answer
        counted += [False] * len(question) + [True] * len(answer)
        said = after
        closed = any(token in tokenizer.special.values() for token in answer)
    if not closed:
        tokens.append(tokenizer.end)
        counted.append(True)
    return Conversation(np.array(tokens, dtype=np.int64), np.array(counted, dtype=bool))


class Conversations:
    """Batches of conversations, padded to their longest; which ones depends on (seed, epoch, step) only."""

    def __init__(self, conversations: list[Conversation], batch: int, context: int, seed: int, end: int) -> None:
        """Conversations longer than `context` predictions lose their end; those that lose every answer are left out.

        Raises:
            ShoestringError: none is left.
        """
        self.kept = [c for c in conversations if c.counted[1 : context + 1].any()]
        self.dropped = len(conversations) - len(self.kept)
        if not self.kept:
            raise ShoestringError(f"lora.context: no answer lies within {context} tokens; raise it")
        self.batch_size, self.context, self.seed, self.end = batch, context, seed, end

    @property
    def windows(self) -> int:
        """Conversations of one epoch."""
        return len(self.kept)

    @property
    def mean_length(self) -> float:
        """Predictions of a conversation, on average."""
        return sum(min(len(c.tokens) - 1, self.context) for c in self.kept) / len(self.kept)

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        import torch

        from shoestring.data.loader import Batch

        rows = [self._row(place) for place in range(step * self.batch_size, (step + 1) * self.batch_size)]
        length = min(self.context, max(len(row.tokens) - 1 for row in rows))
        tokens_BT = np.full((len(rows), length), self.end, dtype=np.int64)
        targets_BT = np.full_like(tokens_BT, IGNORED)
        for number, row in enumerate(rows):
            size = min(length, len(row.tokens) - 1)
            tokens_BT[number, :size] = row.tokens[:size]
            targets_BT[number, :size] = np.where(row.counted[1 : size + 1], row.tokens[1 : size + 1], IGNORED)
        return Batch(torch.from_numpy(tokens_BT), torch.from_numpy(targets_BT))

    def _row(self, place: int) -> Conversation:
        epoch, within = divmod(place, self.windows)
        return self.kept[int(np.random.default_rng([self.seed, epoch]).permutation(self.windows)[within])]


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
            return
        data = path.read_bytes()
        text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8-sig")
    except OSError as error:
        raise file_error(path, error) from error
    except lzma.LZMAError as error:
        raise FileError(f"{path}: can't be unpacked as .xz ({error}); it is damaged or not that kind of file") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 at byte {error.start}; convert it, for example with iconv") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except ValueError as error:
                raise FileError(f"{path}:{number}: not JSON ({error}); mend or remove the line") from error


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise FileError(f"{path}: can't be read as Parquet ({error}); it is damaged or not that kind of file") from error
    for number, record in enumerate(rows, 1):
        yield f"{path}: row {number}", record
