"""Conversations as tokens: the special tokens of the chat template are real, those that a message spells out are text.

Otherwise whoever writes "<|im_end|>" into a message could close their turn and speak as the system. So, where a message
spells a special token out, its first character is replaced ("sealed") by a character of a private-use plane that occurs nowhere
in the conversation; the template is rendered; its text is cut at the special tokens that are still there, which only the
template can have written; and the pieces, unsealed, are encoded without special tokens. A sealed text is as long as its
original, and templates trim, split and change case around seals as around any letter.

A token may also come together from parts ("<|im_" and "end|>" in two parts of a message). So wherever a message has a
character that a special token begins with, the conversation is rendered once more with each such character sealed: that
rendering's special tokens are the template's own, and when the first rendering has others, the second one counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from shoestring.errors import FileError
from shoestring.tokenizer import template

if TYPE_CHECKING:
    from shoestring.tokenizer import Tokenizer

PRIVATE = range(0xF0000, 0x10FFFE)
"""Code points of the private-use planes 15 and 16."""
_PRIVATE = re.compile("[\U000f0000-\U0010ffff]")


@dataclass(frozen=True)
class Rendered:
    """A conversation as its chat form writes it.

    Attributes:
        sealed: the text, in which special tokens that messages spell out have another first character.
        seals: what each of these characters stands for.
        spans: where `{% generation %}` blocks of the template begin and end in the text; None for a template without.
    """

    tokenizer: Tokenizer
    sealed: str
    seals: Mapping[str, str]
    spans: tuple[tuple[int, int], ...] | None = None

    @cached_property
    def text(self) -> str:
        """The text as a person reads it."""
        return self._unsealed(self.sealed)

    def tokens(self, start: int = 0, stop: int | None = None) -> list[int]:
        """The ids of the text, or of its characters from `start` to `stop` as they follow on what stands before them.

        A special token that takes in blanks before it belongs to the stretch that it ends in.
        """
        stop = len(self.sealed) if stop is None else stop
        part = self.sealed[start:stop]
        if not any(seal in part for seal in self.seals) and self.tokenizer.takes_whole(start):
            return self.tokenizer.encode(part, special=True)
        found: list[int] = []
        at, last, token = start, stop, None
        for begin, end, number in self._places:
            if end > stop:
                last = min(last, begin)
                break
            if end > start:
                found += [*self._as_text(at, begin, token), number]
            if end >= start:
                at, token = end, number
        return found + self._as_text(at, last, token)

    def masked(self) -> tuple[list[int], list[bool]] | None:
        """The ids of the text, and which of them the assistant says; None for a template without `{% generation %}` blocks.

        Each block is encoded apart from what stands around it, as it is when it is generated, so the mask is exact.
        """
        if self.spans is None:
            return None
        edges = sorted({0, len(self.sealed), *(edge for span in self.spans for edge in span)})
        tokens: list[int] = []
        mask: list[bool] = []
        for start, stop in pairwise(edges):
            part = self.tokens(start, stop)
            tokens += part
            mask += [any(begin <= start and stop <= end for begin, end in self.spans)] * len(part)
        return tokens, mask

    def _unsealed(self, text: str) -> str:
        return text.translate({ord(seal): letter for seal, letter in self.seals.items()})

    @cached_property
    def _places(self) -> list[tuple[int, int, int]]:
        """Where the template wrote special tokens."""
        return self.tokenizer.special_places(self.sealed)

    def _as_text(self, start: int, stop: int, token: int | None) -> list[int]:
        """The ids of a stretch without special tokens, behind the special token `token` or other text.

        Where a model has special tokens among its words, they are cut in two.
        """
        text, tokenizer = self._unsealed(self.sealed[start:stop]), self.tokenizer

        def first(part: str) -> list[int]:
            return tokenizer.encode(part) if start == 0 else tokenizer.encode_after(part, token)

        found = first(text)
        special = set(tokenizer.special.values()) - {tokenizer.unknown}
        if special.isdisjoint(found):
            return found
        cut = [*(match.start() + 1 for match in tokenizer.spelled.finditer(text)), len(text)]
        found = first(text[: cut[0]]) + [number for a, b in pairwise(cut) for number in tokenizer.encode_after(text[a:b])]
        return [number for number in found if number not in special]


def rendered(tokenizer: Tokenizer, messages: Sequence[template.Message], open_answer: bool, given: Mapping[str, Any]) -> Rendered:
    """A conversation through the tokenizer's chat form, safe to encode.

    Raises:
        FileError: when the template can't be rendered with these messages.
    """
    try:
        strings = set(_strings([messages, given]))
    except RecursionError as error:
        raise FileError("messages: nested too deep to be read; write them flatter") from error
    beginnings = sorted({token[0] for token in tokenizer.special})
    spare = _spare(strings, len(beginnings) + 2)
    begins, ends = next(spare), next(spare)
    seals = dict(zip(spare, beginnings))
    by_letter = {letter: seal for seal, letter in seals.items()}
    spelled = tokenizer.spelled

    def say(change: Any) -> Rendered:
        text, marked = tokenizer.write_chat(
            _changed(messages, change), open_answer, _changed(dict(given), change), (begins, ends)
        )
        plain, spans = _cut_marks(text, begins, ends)
        return Rendered(tokenizer, plain, seals, spans if marked else None)

    if not any(letter in text for text in strings for letter in beginnings):
        return say(str)
    said = say(lambda text: spelled.sub(lambda match: by_letter[match[0][0]] + match[0][1:], text))
    marks = {ord(letter): seal for letter, seal in by_letter.items() if not letter.isalnum()}
    sure = say(lambda text: spelled.sub(lambda match: by_letter[match[0][0]] + match[0][1:], text).translate(marks))
    return said if spelled.findall(said.sealed) == spelled.findall(sure.sealed) else sure


def _strings(value: Any) -> Iterator[str]:
    """Every text anywhere in messages, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _changed(value: Any, change: Any) -> Any:
    """Messages with every text changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_changed(key, change): _changed(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_changed(item, change) for item in value]
    return value


def _spare(strings: set[str], count: int) -> Iterator[str]:
    """Private characters that no text has."""
    taken = {character for text in strings for character in _PRIVATE.findall(text)}
    free = [character for number in PRIVATE[: len(taken) + count] if (character := chr(number)) not in taken]
    if len(free) < count:
        raise FileError("messages: they use every private character of Unicode; leave these out")
    return iter(free[:count])


def _cut_marks(text: str, begins: str, ends: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text without the marks around what the assistant says, and where these stood."""
    spans: list[tuple[int, int]] = []
    parts: list[str] = []
    size, open_at, depth = 0, 0, 0
    for part in re.split(f"([{begins}{ends}])", text):
        if part == begins:
            open_at = size if depth == 0 else open_at
            depth += 1
        elif part == ends:
            depth -= 1
            if depth == 0 and size > open_at:
                spans.append((open_at, size))
        else:
            parts.append(part)
            size += len(part)
    if depth > 0 and size > open_at:  # a template that leaves its block by {% break %}
        spans.append((open_at, size))
    return "".join(parts), tuple(spans)
