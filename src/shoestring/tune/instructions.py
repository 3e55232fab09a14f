"""Conversations to learn from, as tokens of which only the assistant's count.

The tokenizer's chat form is what the model will see when it is asked; each answer is tokenised apart from what stands before
it, as it is when it is generated. A template that says what the assistant says (`{% generation %}`) is taken at its word.

Most templates write a conversation that goes on as they wrote its beginning, and all answers are learned in one rendering. Some
rewrite earlier turns (Qwen3 leaves out what was thought): then each answer is learned in a rendering that ends with it.

B sequences, T tokens.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoestring.errors import FileError, ShoestringError, shown
from shoestring.files import parse_json, utf8
from shoestring.tokenizer import Rendered, Tokenizer
from shoestring.train import IGNORED
from shoestring.tune.forms import GIVEN, Messages, accepted, form_of, read_row

if TYPE_CHECKING:
    from shoestring.data.loader import Batch

Spans = tuple[tuple[int, int], ...]
ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet")
LINKS = ("tool_call_id", "name")
"""What links a tool's message to its call: many templates that write calls leave it out, and nothing is lost."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Tokens of a conversation, and which of them are the assistant's.

    Attributes:
        ends: where each rendering ends, when there are several after one another.
        empty: answers that say nothing or weigh 0, and are not learned.
    """

    tokens: np.ndarray
    counted: np.ndarray
    ends: tuple[int, ...] = ()
    empty: int = 0

    def renderings(self) -> list[Conversation]:
        """Its renderings, each a conversation of its own."""
        if len(self.ends) <= 1:
            return [self]
        starts = (0, *self.ends)
        return [Conversation(self.tokens[a:b], self.counted[a:b]) for a, b in zip(starts, self.ends)]


def holds_messages(path: Path | str) -> bool:
    """Whether a file's first row is chat data, not plain text."""
    path = Path(path)
    if not path.is_file() or not path.name.lower().removesuffix(".xz").endswith(ENDINGS):
        return False
    return form_of(next(iter(_records(path)), ("", None))[1]) is not None


def read_messages(path: Path | str) -> list[tuple[str, Messages]]:
    """The conversations of a file of rows (docs/tune.md has the forms), each with its place for errors.

    Raises:
        FileError: names the file, the line or row, and what is wrong with it.
    """
    found = [(where, read_row(record, where)) for where, record in _records(Path(path))]
    if not found:
        raise FileError(f"{path}: holds no conversations; each row needs {accepted()}")
    return found


def encode(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], where: str = "messages") -> Conversation:
    """A conversation up to its last answer; a counted end token follows where the chat form itself closes answers with none.

    Args:
        messages: as `read_messages` gives them, or plain messages.

    Raises:
        FileError: a template that can't render them, or that leaves out what a message says (by the entry's name).
    """
    given = getattr(messages, "given", {})
    weights = [message.get("weight", 1) for message in messages]
    chat = _Chat(tokenizer, [{k: v for k, v in message.items() if k != "weight"} for message in messages], given, where)
    rows: list[_Row] = []
    empty = 0
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if weights[number] == 0 or not any(value for key, value in message.items() if key not in ("role", "weight")):
            empty += 1
            continue
        chat.must_say_all(number)
        answer, spans = chat.answer(number)
        if (
            rows
            and answer.text.startswith(rows[-1].answer.text)
            and all(begin >= len(rows[-1].answer.text) for begin, _ in spans)
        ):
            rows[-1] = _Row(answer, (*rows[-1].spans, *spans))
        else:
            rows.append(_Row(answer, spans))
    parts = [row.tokens(tokenizer) for row in rows]
    tokens = [number for numbers, _ in parts for number in numbers]
    counted = [each for _, mask in parts for each in mask]
    ends = np.cumsum([len(numbers) for numbers, _ in parts]).tolist()
    return Conversation(np.array(tokens, dtype=np.int64), np.array(counted, dtype=bool), tuple(ends), empty)


@dataclass(frozen=True, slots=True)
class _Row:
    """A rendering, and where in its text are the answers to learn."""

    answer: Rendered
    spans: Spans

    def goes_on(self, answer: Rendered, spans: Spans) -> bool:
        """Whether a later rendering begins with this one, as it stands."""
        size = len(self.answer.text)
        return answer.text.startswith(self.answer.text) and all(begin >= size for begin, _ in spans)

    def tokens(self, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
        """Its ids, and which of them count."""
        edges = sorted({0, len(self.answer.text), *(edge for span in self.spans for edge in span)})
        tokens: list[int] = []
        mask: list[bool] = []
        part: list[int] = []
        for start, stop in pairwise(edges):
            part = self.answer.tokens(start, stop)
            tokens += part
            mask += [(start, stop) in self.spans] * len(part)
        if self.answer.spans is None and not any(token in tokenizer.special.values() for token in part):
            tokens.append(tokenizer.end)
            mask.append(True)
        return tokens, mask


class _Chat:
    """A conversation whose answers are rendered one by one."""

    def __init__(self, tokenizer: Tokenizer, messages: list[dict[str, Any]], given: Mapping[str, Any], where: str) -> None:
        self.tokenizer, self.messages, self.given, self.where = tokenizer, messages, dict(given), where
        self.checked = 0

    def render(self, messages: list[dict[str, Any]], open_answer: bool = False, without: str = "") -> Rendered:
        """A rendering; calls' arguments go as texts where the template can't take mappings."""
        given = {key: value for key, value in self.given.items() if key != without}
        try:
            return self.tokenizer.render(messages, open_answer, **given)
        except ShoestringError as error:
            if any("tool_calls" in message for message in messages):
                try:
                    return self.tokenizer.render([_with_texts(message) for message in messages], open_answer, **given)
                except ShoestringError:
                    pass
            raise FileError(f"{self.where}: {error}") from error

    def answer(self, number: int) -> tuple[Rendered, Spans]:
        """The conversation up to an answer, and where the answer stands in its text."""
        after = self.render(self.messages[: number + 1])
        if after.spans is not None:
            known = self.render(self.messages[:number]).spans if number else ()
            return after, after.spans[len(known or ()) :]
        return after, ((self._start(number, after.text), len(after.text)),)

    def _start(self, number: int, text: str) -> int:
        """Where an answer begins: behind what opens it, or where the text first depends on what it says."""
        try:
            before = self.render(self.messages[:number], open_answer=True).text
        except FileError:  # a template that can't render no messages at all
            before = ""
        if before and text.startswith(before):
            return len(before)
        probe = next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)
        other = self.render([*self.messages[:number], {"role": "assistant", "content": probe}]).text
        depends = next((at for at, (one, two) in enumerate(zip(text, other)) if one != two), min(len(text), len(other)))
        opening = self._opening()
        at = text.rfind(opening, 0, depends + len(opening)) if opening else -1
        return at + len(opening) if at >= 0 and at + len(opening) <= depends else depends

    def _opening(self) -> str:
        """What opens an answer, such as "<|im_start|>assistant"."""
        asked = [{"role": "user", "content": "?"}]
        try:
            closed, opened = self.render(asked).text, self.render(asked, open_answer=True).text
        except FileError:
            return ""
        return opened[len(closed) :] if opened.startswith(closed) else ""

    def must_say_all(self, last: int) -> None:
        """Refuse entries up to a message, and of the row, that the template leaves out.

        Raises:
            FileError: names the entry and its value.
        """
        for key in GIVEN if self.checked == 0 else ():
            upto = self.messages[: last + 1]
            if key in self.given and self.render(upto).text == self.render(upto, without=key).text:
                raise FileError(f"{self.where}: the chat template leaves out {key}; use a template that writes it, or remove it")
        for number in range(self.checked, last + 1):
            message = self.messages[number]
            answers_call = message["role"] == "tool" and any("tool_calls" in earlier for earlier in self.messages[:number])
            for key in message.keys() - {"role", "content"} - set(LINKS if answers_call else ()):
                if not self._says(number, key):
                    raise FileError(
                        f"{self.where}: the chat template leaves out {shown(key, quote=False)} of a message of the "
                        f"{message['role']} ({shown(message[key])}); use a template that writes it, or remove it"
                    )
        self.checked = last + 1

    def _says(self, number: int, key: str) -> bool:
        """Whether a message would read otherwise without an entry."""
        whole = {"content": "", **self.messages[number]}
        without = {name: value for name, value in whole.items() if name != key}
        before = self.messages[:number]
        text = self.render([*before, whole]).text
        try:
            return text != self.render([*before, without]).text
        except FileError:  # the template can't do without it
            return True


def _with_texts(message: dict[str, Any]) -> dict[str, Any]:
    """A message with its calls' arguments as JSON texts."""
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"].get("arguments", {}))}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


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
    """The rows of a file: JSON lines, one array in JSON, Parquet."""
    from shoestring.files import read_bytes

    name = path.name.lower()
    if name.endswith(".parquet"):
        yield from _parquet(path)
        return
    data = read_bytes(path)
    try:
        text = utf8(lzma.decompress(data) if name.endswith(".xz") else data, path)
    except lzma.LZMAError as error:
        raise FileError(f"{path}: can't be unpacked as .xz ({error}); it is damaged or not that kind of file") from error
    if name.removesuffix(".xz").endswith(".json") and text.lstrip()[:1] == "[":
        yield from ((f"{path}: row {number}", row) for number, row in enumerate(parse_json(text, path), 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", parse_json(line, f"{path}:{number}", "mend or remove the line")


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise FileError(f"{path}: can't be read as Parquet ({error}); it is damaged or not that kind of file") from error
    for number, record in enumerate(rows, 1):
        yield f"{path}: row {number}", record
