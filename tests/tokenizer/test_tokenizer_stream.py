"""An answer is what prompt and answer read as together, less the prompt; the pieces of a stream joined are that whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.tokenizer import TextStream, Tokenizer
from tests.tokenizer.kinds import KINDS


def made(kind: str) -> Tokenizer:
    return Tokenizer(KINDS[kind], {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_joined_are_the_whole(kind: str) -> None:
    tokenizer = made(kind)
    some = st.integers(0, tokenizer.vocabulary - 1) | st.sampled_from([*tokenizer.special.values(), *tokenizer.encode("a the é")])

    @given(st.lists(some, max_size=50), st.lists(some, max_size=80))
    @settings(max_examples=100, deadline=None)
    def same(before: list[int], answer: list[int]) -> None:
        alone, whole = tokenizer.decode(before), tokenizer.decode(before + answer)
        stream = TextStream(tokenizer, before)
        pieces = [stream.push(token) for token in answer]
        while not whole.startswith(alone):
            alone = alone[:-1]
        assert "".join(pieces) + stream.flush() == tokenizer.answer(before, answer) == whole.removeprefix(alone)

    same()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_keeps_its_first_space(kind: str) -> None:
    tokenizer = made(kind)
    before, answer = tokenizer.encode("The cat"), tokenizer.encode_after(" in the bin")
    assert tokenizer.answer(before, answer) == " in the bin" if kind != "word-piece" else True
    long = answer * 30
    assert tokenizer.answer(before, long) == " in the bin" * 30 if kind != "word-piece" else True


def test_characters_are_never_cut() -> None:
    for kind in ("byte-level", "legacy"):
        tokenizer = made(kind)
        before = tokenizer.encode("x")
        ids = tokenizer.encode("x日本 é")[len(before) :]
        stream = TextStream(tokenizer, before)
        pieces = [stream.push(token) for token in ids]
        assert "\ufffd" not in "".join(pieces)
        assert "".join(pieces) == "日本 é"
        assert tokenizer.answer(before, ids[:2]).startswith("\ufffd")


def test_a_prompt_that_ends_within_a_character() -> None:
    tokenizer = made("byte-level")
    ids = tokenizer.encode("é")
    assert tokenizer.answer(ids[:1], ids[1:]) == "é"
    assert tokenizer.answer(ids[:1], tokenizer.encode("a")) == "a"
    assert tokenizer.answer(ids[:1], []) == ""
