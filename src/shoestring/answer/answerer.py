"""What answers: one protocol for a model here, a model elsewhere, and whatever wraps them (votes, examples, retrieval, cascades).

Each wrapper is an answerer over others and adds what they used, so that a strategy is scored by quality and cost together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shoestring.measure import Hardware, Meter, Usage

if TYPE_CHECKING:
    from shoestring.infer.answering import Answering
    from shoestring.infer.sampling import Sampling
    from shoestring.model import Transformer
    from shoestring.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back to one prompt.

    Attributes:
        text: the answer.
        tokens_in, tokens_out: tokens that were read and made for it, in all calls together.
        usage: its share of what the calls used.
    """

    text: str
    tokens_in: int
    tokens_out: int
    usage: Usage


class Answerer(Protocol):
    """Answers prompts."""

    def answer(self, prompts: Sequence[str], sampling: Sampling) -> list[Answer]:
        """One answer to each prompt, in their order."""


@dataclass(frozen=True, slots=True)
class Local:
    """A model in memory.

    Attributes:
        hardware: what its use is reckoned with.
        answering: how its engine is set.
    """

    model: Transformer
    tokenizer: Tokenizer
    hardware: Hardware
    answering: Answering

    def answer(self, prompts: Sequence[str], sampling: Sampling) -> list[Answer]:
        """One batch; its use is shared by the tokens of each."""
        from shoestring.infer import cost
        from shoestring.infer.answers import generate
        from shoestring.infer.stops import stop_tokens

        read = [self.tokenizer.prompt(prompt) for prompt in prompts]
        with Meter(self.hardware) as meter:
            made = generate(self.model, read, sampling, stop_tokens(self.tokenizer), **dict(self.answering))
            for prompt, answer in zip(read, made):
                steps = cost.decode_total_flops(self.model.config, 1, len(prompt), len(answer))
                meter.count(flops=cost.prefill_flops(self.model.config, 1, len(prompt)) + steps)
        whole = sum(len(prompt) + len(answer) for prompt, answer in zip(read, made))
        return [
            Answer(
                self.tokenizer.answer(prompt, answer), len(prompt), len(answer), shared(meter.usage, len(prompt + answer) / whole)
            )
            for prompt, answer in zip(read, made)
        ]


def shared(usage: Usage, share: float) -> Usage:
    """A part of what was used together; memory was held by all."""
    parts = ("seconds", "flops", "energy", "carbon", "money", "communication")
    return usage.with_(**{name: getattr(usage, name).scaled(share) for name in parts})
