"""The one stepping core: a batch of rows that grow by a token a step, join by a prefill and leave when they are done.

Prompts of a prefill are padded on the right; what padding writes into the cache is overwritten before it can be seen. The
cache grows in strides as its longest row does, so attention reads little beyond what is there. Whole answers (`generate`)
and the server (`Engine`) both drive this class, so they give the same tokens.

B rows, T prompt tokens of the longest, C width, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.errors import SettingError
from shoestring.infer.sampling import NONE, Chooser, Sampling
from shoestring.model import Cache, Inputs, Transformer, hidden

Finish = Literal["stop", "length", "cancelled", "error"]

STRIDE = 64
"""The cache grows by multiples of so many tokens."""
PREFILL_TOKENS = 8192
"""Prompt tokens, padding included, that are read in one pass at the most: it bounds the memory of a prefill."""

NOT_FINITE = "its weights are damaged or its training diverged: take an earlier checkpoint"


class TooLong(SettingError):
    """A prompt that doesn't fit the context together with its answer."""


@dataclass(slots=True, eq=False)
class Row:
    """One answer in the making."""

    prompt: Sequence[int]
    sampling: Sampling
    stop: frozenset[int] = frozenset()
    """Tokens that end the answer; they are not part of it."""
    emit: Callable[[int], None] | None = None
    """Told of each token as it is made."""
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    """Why the answer ended; None while it goes on. Setting it to "cancelled" makes the row leave at the next step."""
    failure: str = ""
    """What went wrong, when `finish` is "error"."""
    uniforms: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.uniforms = self.sampling.uniforms()

    @property
    def length(self) -> int:
        """Prompt and answer so far."""
        return len(self.prompt) + len(self.tokens)

    def take(self, token: int) -> None:
        """Add a token, or end on it; `NONE` ends the answer with an error."""
        if token == NONE:
            place = f"after {len(self.tokens)} tokens" if self.tokens else "on this prompt"
            self.finish, self.failure = "error", f"the model's logits are not finite {place}; {NOT_FINITE}"
            return
        if token in self.stop:
            self.finish = "stop"
            return
        self.tokens.append(token)
        if self.emit is not None:
            self.emit(token)
        # `emit` may have cancelled the row.
        if self.finish is None and len(self.tokens) >= self.sampling.max_tokens:
            self.finish = "length"


def check_prompt(prompt: Sequence[int], sampling: Sampling, config: ModelConfig, where: str = "prompt") -> None:
    """Refuse what the model can't answer.

    Raises:
        SettingError: an empty prompt or a token outside the vocabulary.
        TooLong: more tokens than the context holds.
    """
    if not prompt:
        raise SettingError(f"{where}: empty; give at least one token")
    if len(prompt) + sampling.max_tokens > config.context:
        room = config.context - len(prompt)
        advice = f"lower max_tokens to {room} or shorten the prompt" if room > 0 else "shorten the prompt"
        raise TooLong(
            f"{where}: {len(prompt)} tokens with max_tokens {sampling.max_tokens} exceed the model's context of "
            f"{config.context} tokens; {advice}"
        )
    worst = max(prompt, key=lambda token: token if token >= config.vocabulary else -token)
    if not 0 <= worst < config.vocabulary:
        raise SettingError(f"{where}: token {worst} is not in the vocabulary; allowed: 0 to {config.vocabulary - 1}")


def next_group(waiting: deque[Row], free: int) -> list[Row]:
    """Take from the front what one prefill may read: at most `free` rows and `PREFILL_TOKENS` padded tokens."""
    group: list[Row] = []
    longest = 0
    while waiting and len(group) < free:
        longest = max(longest, len(waiting[0].prompt))
        if group and longest * (len(group) + 1) > PREFILL_TOKENS:
            break
        group.append(waiting.popleft())
    return group


class Decoder:
    """A model with the rows that it is answering now. Not thread-safe; call its methods under `torch.inference_mode()`."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.rows: list[Row] = []
        self.device = model.embedding.weight.device
        self._cache: Cache | None = None
        self._last_B1: Tensor
        self._chooser: Chooser

    def admit(self, rows: list[Row]) -> list[Row]:
        """Read the prompts of new rows, give each its first token, and take them into the batch.

        Returns:
            The new rows that ended at once (a first token that stops, or max_tokens of 1).
        """
        longest = max(len(row.prompt) for row in rows)
        tokens_BT = torch.tensor([[*row.prompt, *[0] * (longest - len(row.prompt))] for row in rows], device=self.device)
        lengths_B = torch.tensor([len(row.prompt) for row in rows], device=self.device)
        cache = self.model.new_cache(len(rows), self._slots(longest + 1))
        hidden_BTC = self.model(tokens_BT, Inputs(cache=cache), read=hidden)
        cache.advance(lengths_B)
        # Only the last place of each prompt goes through the head: it is the widest matrix of a small model.
        last_BC = hidden_BTC[torch.arange(len(rows), device=self.device), lengths_B - 1]
        chooser = Chooser.of([row.sampling for row in rows], self.device)
        last_B1 = self._extend(rows, self.model.head(last_BC), chooser)
        if self._cache is None:
            self._cache, self._last_B1, self.rows = cache, last_B1, list(rows)
        else:
            self._cache.join(cache)
            self._last_B1 = torch.cat((self._last_B1, last_B1))
            self.rows = self.rows + list(rows)
        self._chooser = Chooser.of([row.sampling for row in self.rows], self.device)
        return self.drop_finished()

    def step(self) -> list[Row]:
        """Give every row its next token.

        Returns:
            The rows that ended; they have left the batch.
        """
        assert self._cache is not None
        needed = max(row.length for row in self.rows)
        if needed > self._cache.slots:
            self._cache.resize(self._slots(needed))
        hidden_B1C = self.model(self._last_B1, Inputs(cache=self._cache), read=hidden)
        self._cache.advance(1)
        self._last_B1 = self._extend(self.rows, self.model.head(hidden_B1C[:, -1]), self._chooser)
        return self.drop_finished()

    def drop_finished(self) -> list[Row]:
        """Let the rows go that have ended or were cancelled."""
        finished = [row for row in self.rows if row.finish is not None]
        if not finished:
            return finished
        staying = [number for number, row in enumerate(self.rows) if row.finish is None]
        self.rows = [self.rows[number] for number in staying]
        if not self.rows:
            self._cache = None
            return finished
        assert self._cache is not None
        kept = torch.tensor(staying, device=self.device)
        self._cache.reorder(kept)
        self._last_B1 = self._last_B1[kept]
        self._chooser = Chooser.of([row.sampling for row in self.rows], self.device)
        return finished

    def reset(self) -> list[Row]:
        """Drop everything, after a failure; the rows that were being answered."""
        rows, self.rows, self._cache = self.rows, [], None
        return rows

    def _extend(self, rows: list[Row], logits_BV: Tensor, chooser: Chooser) -> Tensor:
        """Choose a token for each row and hand it over; the tokens, (B, 1)."""
        uniforms = [row.uniforms[len(row.tokens)] if row.uniforms else 0.0 for row in rows]
        chosen_B = chooser.choose(logits_BV, uniforms)
        for row, token in zip(rows, chosen_B.tolist()):
            row.take(token)
        return chosen_B[:, None]

    def _slots(self, needed: int) -> int:
        """Cache slots for so many tokens: whole strides, but never beyond the context, where positions end."""
        return max(needed, min(-(-needed // STRIDE) * STRIDE, self.model.config.context))
