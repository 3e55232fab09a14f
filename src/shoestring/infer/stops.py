"""Which tokens end an answer."""

from __future__ import annotations

from shoestring.tokenizer import Tokenizer


def stop_tokens(tokenizer: Tokenizer) -> set[int]:
    """The ids that end an answer: the tokenizer's, and those that the model's files name."""
    return set(tokenizer.ends)
