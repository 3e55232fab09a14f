"""Tokens to text: characters stay whole, stop strings never slip out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.serve.text import StopStrings
from shoestring.tokenizer import TextStream, Tokenizer


def pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.push(token) for token in tokens), stream.flush()]


def test_no_character_is_cut(tokenizer: Tokenizer) -> None:
    text = "Größe 日本語 🎉👩‍👩‍👧 ok"
    told = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(told) == text
    assert not any("\ufffd" in piece for piece in told)
    assert [len(piece) for piece in told[:4]] == [1, 1, 0, 1]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 255), st.sampled_from([0xF0, 0x9F, 0x8E, 0xE2, 0xC3, 0xA9, 256, 258])), max_size=120))
def test_pieces_put_together_are_the_decoded_answer(tokens: list[int]) -> None:
    tokenizer = Tokenizer.from_ranks(
        {bytes([n]): n for n in range(256)}, r"[\s\S]", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    )
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_an_unfinished_end_is_told_as_broken(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, list("é!é".encode())[:-1]) == ["", "é", "!", "", "\ufffd"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["three", "two"], "one "),
        ("aaab", ["aab"], "a"),
        ("ababac rest", ["abac"], "ab"),
        ("no such thing here", ["thang", "hero"], "no such thing here"),
        ("ends with half a st", ["stop"], "ends with half a st"),
        ("anything", [], "anything"),
    ],
)
def test_stop_strings(text: str, stops: list[str], shown: str, size: int) -> None:
    scanner = StopStrings(stops)
    told = "".join(scanner.push(text[start : start + size]) for start in range(0, len(text), size)) + scanner.flush()
    assert told == shown
    assert scanner.found == (shown != text)


def test_stop_strings_against_find() -> None:
    draw = random.Random(1)
    for _ in range(500):
        text = "".join(draw.choices("ab", k=30))
        stop = "".join(draw.choices("ab", k=draw.randint(1, 6)))
        scanner = StopStrings([stop])
        told = "".join(map(scanner.push, text)) + scanner.flush()
        assert told == text.partition(stop)[0]
