"""Drafters: what guesses the next tokens cheaply, so that a step of the model checks several at a time.

The text is the same with any drafter and with none; a good one saves steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shoestring.choice import Choice, Table

Drafter = Callable[[Sequence[int], int], list[int]]
"""Prompt and answer so far, and how many guesses are wanted -> so many guesses, or fewer."""

LONGEST = 3
"""Tokens of a run that is looked for, at first."""


def ngram(tokens: Sequence[int], count: int) -> list[int]:
    """What followed the last tokens where they stood before: the newest place of the longest run, of 3, 2 or 1 tokens."""
    for length in range(min(LONGEST, len(tokens) - 1), 0, -1):
        run = list(tokens[-length:])
        for begin in range(len(tokens) - length - 1, -1, -1):
            if tokens[begin + length - 1] == run[-1] and list(tokens[begin : begin + length]) == run:
                return list(tokens[begin + length : begin + length + count])
    return []


def nothing(tokens: Sequence[int], count: int) -> list[int]:
    """No guess."""
    return []


NOTHING = Choice("none", nothing, does="a token a step", row="")
NGRAM = Choice(
    "ngram",
    ngram,
    does="guesses what followed the same tokens before; right guesses cost one step together",
    row="Y3",
    paper="2304.04487",
    saves=("computation", "memory", "energy"),
)
DRAFTERS: Table[Drafter] = Table("Engine.drafter", NOTHING, NGRAM)
