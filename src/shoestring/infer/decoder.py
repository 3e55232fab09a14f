"""The rows of a batch: they join by a prefill, take part in `step` after `step`, and leave when they are done.

Prompts of a prefill are padded on the right; what padding writes into the cache is overwritten before it can be seen. Joining
and leaving change which places of the cache are in use; only a row that fills another's gap is copied. A GPU is given the next
step before the tokens of the last are read. Whole answers (`generate`) and the server (`Engine`) both drive this class, so
they give the same tokens.

B rows, T tokens of the longest, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import state_bytes_per_row
from shoestring.errors import SettingError
from shoestring.infer.drafters import Drafter, nothing
from shoestring.infer.sampling import NONE, Chooser, Sampling
from shoestring.infer.step import Taken, step
from shoestring.model import Cache, Transformer

Finish = Literal["stop", "length", "cancelled", "error"]

BEHIND = 1
"""Steps that a GPU is given before the host reads the tokens of the one before."""
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
    launched: int = 0
    """Tokens that were asked for: those that were read, and those that a GPU is still at."""
    uniforms: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.uniforms = self.sampling.uniforms()

    @property
    def held(self) -> int:
        """Tokens of it that the cache holds before its next step: the newest is not read yet."""
        return len(self.prompt) + self.launched - 1

    @property
    def left(self) -> int:
        """Tokens that may still be asked for."""
        return self.sampling.max_tokens - self.launched

    def draws(self, count: int) -> list[float]:
        """Its random numbers for the next `count` tokens."""
        found = self.uniforms[self.launched : self.launched + count]
        return found + [0.0] * (count - len(found))

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

    def __init__(self, model: Transformer, places: int = 8, drafter: Drafter = nothing, guesses: int = 4) -> None:
        """
        Args:
            places: rows together at the most.
            drafter: guesses what comes next; a step then checks its guesses and takes those that are right.
            guesses: of a row at a time, at the most.

        Raises:
            SettingError: a drafter for a model with a recurrent state.
        """
        if drafter is not nothing and state_bytes_per_row(model.config):
            raise SettingError("drafter: this model keeps a recurrent state, which can't forget a wrong guess; use none")
        self.model, self.places = model, places
        self.drafter, self.guesses = drafter, guesses
        self.rows: list[Row] = []
        self.device = model.embedding.weight.device
        self.behind = BEHIND if self.device.type == "cuda" and drafter is nothing else 0
        self._cache: Cache | None = None
        self._last_B1 = torch.zeros(0, 1, dtype=torch.long, device=self.device)
        self._choosers: dict[int, Chooser] = {}
        self._unread: deque[tuple[list[Row], Taken]] = deque()
        self._leaving: list[Row] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.rows or self._unread)

    def admit(self, rows: list[Row]) -> list[Row]:
        """Read the prompts of new rows, give each its first token, and take them into the batch.

        Returns:
            The rows that ended: new ones at once, or earlier ones whose last token was read now.
        """
        longest, first = max(len(row.prompt) for row in rows), len(self.rows)
        if self._cache is None:
            self._cache = Cache.of(self.model, self.places, longest + 1)
        self._cache.reserve(longest)
        self._cache.held_R[first : first + len(rows)] = 0
        tokens_BT = torch.tensor([[*row.prompt, *[0] * (longest - len(row.prompt))] for row in rows], device=self.device)
        lengths_B = torch.tensor([len(row.prompt) for row in rows], device=self.device)
        place = self._cache.rows(lengths_B, first, longest)
        chooser = Chooser.of([row.sampling for row in rows], self.device)
        taken = step(self.model, self._cache, place, tokens_BT, chooser, [row.draws(1) for row in rows], prompts=True)
        self.rows, self._choosers = self.rows + rows, {}
        self._last_B1 = torch.cat((self._last_B1, taken.last_B1))
        self._launched(rows, taken)
        return self._read(self.behind)

    def step(self) -> list[Row]:
        """Give every row its next token, or several where guesses were right.

        Returns:
            The rows that ended; they have left the batch.
        """
        if not self.rows:
            return self._read(0)
        assert self._cache is not None
        rows, guesses_BK = self.rows, self._guesses()
        count = 1 + guesses_BK.shape[1]
        length = max(row.held for row in rows) + count
        self._cache.reserve(length)
        place = self._cache.rows(torch.full((len(rows),), count, device=self.device), 0, length)
        tokens_BT = torch.cat((self._last_B1, guesses_BK), 1)
        taken = step(self.model, self._cache, place, tokens_BT, self._chooser(count), [row.draws(count) for row in rows])
        self._last_B1 = taken.last_B1
        self._launched(rows, taken)
        return self._read(self.behind)

    def drop_finished(self) -> list[Row]:
        """Let the rows go that have ended or were cancelled."""
        ended = [row for row in self.rows + self._leaving if row.finish is not None]
        self._leaving = [row for row in self._leaving if row.finish is None]
        self._keep([row.finish is None for row in self.rows])
        return ended

    def reset(self) -> list[Row]:
        """Drop everything, after a failure; the rows that were being answered."""
        rows, self.rows, self._leaving, self._cache = self.rows + self._leaving, [], [], None
        self._unread.clear()
        self._last_B1 = self._last_B1[:0]
        return rows

    def _guesses(self) -> Tensor:
        """What the drafter thinks comes next, (B, K); K is 0 without one, or near the end of an answer."""
        most = min([self.guesses, *(row.left - 1 for row in self.rows)])
        if self.drafter is nothing or most < 1:
            return self._last_B1[:, :0]
        found = [self.drafter([*row.prompt, *row.tokens], most) for row in self.rows]
        width = max(map(len, found))
        padded = [[*each, *[0] * (width - len(each))] for each in found]
        return torch.tensor(padded, dtype=torch.long, device=self.device).view(len(found), width)

    def _launched(self, rows: list[Row], taken: Taken) -> None:
        """Note what was asked for; rows that have been given their last token leave, to be read later."""
        counts = [1] * len(rows) if taken.taken_B is None else taken.taken_B.tolist()
        for row, count in zip(rows, counts):
            row.launched += count
        self._unread.append((list(rows), taken.landing()))
        over = [row.left <= 0 for row in self.rows]
        self._leaving += [row for row, gone in zip(self.rows, over) if gone]
        self._keep([not gone for gone in over])

    def _read(self, keep: int) -> list[Row]:
        """Hand over the tokens of all steps but the newest `keep`; the rows that ended."""
        while len(self._unread) > keep:
            rows, taken = self._unread.popleft()
            for row, tokens in zip(rows, taken.read()):
                for token in tokens:
                    if row.finish is None:
                        row.take(token)
        return self.drop_finished()

    def _chooser(self, count: int) -> Chooser:
        """Of so many places a row, made when rows have changed."""
        if count not in self._choosers:
            self._choosers[count] = Chooser.of([row.sampling for row in self.rows for _ in range(count)], self.device)
        return self._choosers[count]

    def _keep(self, staying: list[bool]) -> None:
        """Let some rows go: the last ones take the places of those before them that leave."""
        count, order = sum(staying), list(range(len(staying)))
        if count == len(staying):
            return
        assert self._cache is not None
        movers = [place for place in order[count:] if staying[place]]
        for gap in (place for place in order[:count] if not staying[place]):
            order[gap] = movers.pop()
            self._cache.copy(order[gap], gap, self.rows[order[gap]].held)
        self.rows, self._choosers = [self.rows[place] for place in order[:count]], {}
        self._last_B1 = self._last_B1[order[:count]]
