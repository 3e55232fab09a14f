"""An answer's text, as its tokens come: what the prompt and the answer read as together, less what the prompt reads as alone.

Decoded by itself an answer would lose the space that its first token begins with (SentencePiece's decoders drop a text's first
space), and a character whose bytes are in several tokens would be cut. The pieces of a stream, joined, are the whole text.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shoestring.tokenizer import Tokenizer

BROKEN = "\ufffd"
"""What decoders put for bytes that are not UTF-8."""
WINDOW = 16
"""Tokens before a new one that are decoded with it: more than marks depend on that join words or drop a space."""


class TextStream:
    """Decodes an answer token by token; special tokens are left out."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        """`before`: the tokens that the answer follows on."""
        self._decoder: _Decoder = _Bytes(tokenizer, before) if tokenizer.byte_level else _Window(tokenizer, before)

    def push(self, token: int) -> str:
        """The text that this token completes; empty in the middle of a character."""
        return self._decoder.push(token)

    def flush(self) -> str:
        """What is left at the end of the answer: an unfinished character, as a replacement mark."""
        return self._decoder.flush()


def text_after(tokenizer: Tokenizer, before: Sequence[int], tokens: Sequence[int]) -> str:
    """The text of tokens that follow on others."""
    stream = TextStream(tokenizer, before)
    return "".join([stream.push(token) for token in tokens]) + stream.flush()


def common(first: str, second: str) -> int:
    """Characters with which both texts begin."""
    if second.startswith(first):
        return len(first)
    return next(place for place, (a, b) in enumerate(zip(first + "\0", second + "\1")) if a != b)


class _Decoder(Protocol):
    def push(self, token: int) -> str: ...

    def flush(self) -> str: ...


class _Bytes:
    """Tokens that are bytes: an incremental UTF-8 decoder does it."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        tail = b""
        for token in reversed(before):
            tail = tokenizer.token_bytes(token, special=False) + tail
            if len(tail) >= 4:  # no character has more bytes
                break
        self._utf8.decode(tail)
        self._prompts_mark = self._utf8.getstate()[0] != b""
        """The prompt ends within a character, which reads as a mark already."""

    def push(self, token: int) -> str:
        return self._new(self._utf8.decode(self._tokenizer.token_bytes(token, special=False)))

    def flush(self) -> str:
        return self._new(self._utf8.decode(b"", final=True))

    def _new(self, text: str) -> str:
        if self._prompts_mark and text:
            self._prompts_mark = False
            return text.removeprefix(BROKEN)
        return text


class _Window:
    """Any other decoder: the last tokens are decoded with each new one, and what was there before is left out.

    A run of byte tokens is decoded when it ends: if it is not UTF-8 as a whole, it is all marks.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._limit = WINDOW
        self._tokens = self._anchored([int(token) for token in before], WINDOW)
        self._shown = tokenizer.decode(self._tokens)

    def push(self, token: int) -> str:
        self._tokens.append(int(token))
        return "" if self._open(int(token)) else self._new()

    def flush(self) -> str:
        return self._new()

    def _new(self) -> str:
        text = self._tokenizer.decode(self._tokens)
        piece = text[common(self._shown, text) :]
        self._shown = text
        if len(self._tokens) > 2 * self._limit:
            self._tokens = self._anchored(self._tokens, WINDOW)
            self._limit = max(WINDOW, len(self._tokens))
            self._shown = self._tokenizer.decode(self._tokens)
        return piece

    def _anchored(self, tokens: list[int], size: int) -> list[int]:
        """The last tokens, so many that they hold text: a first space that a decoder drops is then not an answer's."""
        while size < len(tokens):
            tail = tokens[-size:]
            if not self._open(tail[0]) and self._tokenizer.decode(tail).strip():
                return tail
            size *= 2
        return list(tokens)

    def _open(self, token: int) -> bool:
        """Whether a token leaves a run of bytes open: it is one, or has no text."""
        return token in self._tokenizer.byte_tokens or not self._tokenizer.token_bytes(token, special=False)
