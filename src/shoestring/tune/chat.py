"""A conversation as tokens of which only the assistant's count.

The tokenizer's chat form is what the model will see when it is asked; each answer is tokenised apart from what stands before
it, as it is when it is generated. A template that says what the assistant says (`{% generation %}`) is taken at its word.

Most templates write a conversation that goes on as they wrote its beginning, and all answers are learned in one rendering. Some
rewrite earlier turns (Qwen3 leaves out what was thought): then each answer is learned in a rendering that ends with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from shoestring.errors import FileError, ShoestringError, shown
from shoestring.tokenizer import Rendered, Tokenizer
from shoestring.tune.forms import GIVEN

Spans = tuple[tuple[int, int], ...]
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
