"""Continuous batching behind a server: requests join and leave between two steps of one worker thread.

Waiting requests are bounded, running ones too; tokens go to a queue, or to a listener, as they are made. The stepping is
`Decoder`'s, the same as for `generate`. Continuous batching is Orca's (Yu and others, OSDI 2022).
"""

from __future__ import annotations

import queue
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from shoestring.errors import SettingError, ShoestringError
from shoestring.infer.decoder import Decoder, Row, check_prompt, next_group
from shoestring.infer.drafters import DRAFTERS
from shoestring.infer.sampling import Sampling
from shoestring.model import Transformer

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histograms' buckets."""


class Busy(ShoestringError):
    """The queue is full; `retry_after` says in how many seconds a place is likely."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Closed(ShoestringError):
    """The engine is shutting down."""


@dataclass(slots=True)
class Histogram:
    """Counts by bucket; `counts` has one entry more than there are bounds, for what lies above the last."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(SECONDS, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Values counted."""
        return sum(self.counts)


@dataclass(slots=True)
class Counters:
    """What an engine has done since it began. Plain numbers; the worker writes, anyone may read."""

    tokens_in: int = 0
    """Prompt tokens read."""
    tokens_out: int = 0
    """Tokens made."""
    finished: Counter[str] = field(default_factory=Counter)
    """Answers by how they ended: stop, length, cancelled, error."""
    rejected: int = 0
    """Requests refused because the queue was full."""
    first_token: Histogram = field(default_factory=Histogram)
    """Seconds from `submit` to the first token."""
    between_tokens: Histogram = field(default_factory=Histogram)
    """Seconds from one token of an answer to its next."""
    answer: Histogram = field(default_factory=Histogram)
    """Seconds from `submit` to the end."""


class Answer:
    """A request's handle: iterate over it for its tokens."""

    def __init__(self, engine: Engine, row: Row, listener: Callable[[int | None], None] | None) -> None:
        self.row = row
        self.failure = ""
        """What went wrong, when `finish` is "error"."""
        self._engine = engine
        self._tokens: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._listener = listener or self._tokens.put
        self._submitted = self._latest = time.perf_counter()

    @property
    def finish(self) -> str | None:
        """Why it ended: "stop", "length", "cancelled" or "error"; None while it goes on."""
        return self.row.finish

    def cancel(self) -> None:
        """End it early; it leaves the batch before the next step. Harmless when it has ended."""
        self._engine._cancel(self)

    def __iter__(self) -> Iterator[int]:
        """Its tokens as they are made, until it ends. Once only, and not when a listener was given."""
        while (token := self._tokens.get()) is not None:
            yield token

    def _hear(self, token: int | None) -> None:
        """Pass a token, or None for the end, to whoever listens. A listener that fails ends its own answer, no other."""
        try:
            self._listener(token)
        except Exception as error:
            self.failure = f"the listener failed: {error}"
            self.row.finish = self.row.finish or "cancelled"


class Engine:
    """A model that answers many at a time. Close it, or use it in a `with` block."""

    def __init__(self, model: Transformer, slots: int = 8, waiting: int = 32, drafter: str = "none") -> None:
        """
        Args:
            slots: answers made together at the most.
            waiting: requests that may wait for a slot.
            drafter: what guesses the next tokens, "none" or "ngram".
        """
        if slots < 1 or waiting < 1:
            raise SettingError(f"engine: slots and waiting must be at least 1, got {slots} and {waiting}")
        self.model = model
        self.slots = slots
        self.limit = waiting
        self.counters = Counters()
        self._decoder = Decoder(model, slots, DRAFTERS.choose(drafter, "engine.drafter"))
        self._waiting: deque[Row] = deque()
        self._answers: dict[int, Answer] = {}
        self._closing = False
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="shoestring-engine", daemon=True)
        self._worker.start()

    @property
    def running(self) -> int:
        """Answers being made now."""
        return len(self._decoder.rows)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """True while it takes requests."""
        return self._worker.is_alive() and not self._closing

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        stop: Collection[int] = (),
        listener: Callable[[int | None], None] | None = None,
    ) -> Answer:
        """Ask for an answer; returns at once.

        Args:
            listener: called in the worker's thread with each token and then with None; the answer is then not iterable.

        Raises:
            SettingError: the prompt is empty, has a token outside the vocabulary, or does not fit the context.
            Busy: as many requests as may are waiting already.
            Closed: the engine is shutting down.
        """
        check_prompt(prompt, sampling, self.model.config)
        row = Row(prompt, sampling, frozenset(stop))
        answer = Answer(self, row, listener)
        row.emit = partial(self._made, answer)
        with self._changed:
            if self._closing:
                raise Closed("the engine is shutting down; ask again when it is back")
            if len(self._waiting) >= self.limit:
                self.counters.rejected += 1
                raise Busy(f"{len(self._waiting)} requests are waiting, no more may; try again later", self._patience())
            self._waiting.append(row)
            self._answers[id(row)] = answer
            self._changed.notify()
        return answer

    def close(self, grace: float = 0.0) -> None:
        """Take no more requests, give those at hand `grace` seconds to end, cancel the rest, stop the worker."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._worker.join(grace)
        for answer in list(self._answers.values()):
            answer.cancel()
        self._worker.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _patience(self) -> float:
        """Seconds until a waiting place is likely to be free: the mean answer's time shared among the slots."""
        seen = self.counters.answer
        mean = seen.total / seen.count if seen.count else 1.0
        return max(1.0, mean / self.slots)

    def _cancel(self, answer: Answer) -> None:
        with self._changed:
            if answer.row.finish is not None:
                return
            answer.row.finish = "cancelled"
            if answer.row in self._waiting:
                self._waiting.remove(answer.row)
                self._ended([answer.row])

    def _made(self, answer: Answer, token: int) -> None:
        """Count a token of an answer and pass it on."""
        now = time.perf_counter()
        first = len(answer.row.tokens) == 1
        (self.counters.first_token if first else self.counters.between_tokens).observe(now - answer._latest)
        answer._latest = now
        self.counters.tokens_out += 1
        answer._hear(token)

    def _ended(self, rows: Sequence[Row]) -> None:
        for row in rows:
            answer = self._answers.pop(id(row))
            answer.failure = answer.failure or row.failure
            self.counters.finished[row.finish or "error"] += 1
            self.counters.answer.observe(time.perf_counter() - answer._submitted)
            answer._hear(None)

    @torch.inference_mode()
    def _work(self) -> None:
        """The worker: while there is something to do, let a group join, then step."""
        while True:
            with self._changed:
                while not (self._waiting or self._decoder.busy or self._closing):
                    self._changed.wait()
                if not self._waiting and not self._decoder.busy:
                    return
                group = next_group(self._waiting, self.slots - len(self._decoder.rows))
            try:
                self._ended(self._decoder.drop_finished())
                if group:
                    self.counters.tokens_in += sum(len(row.prompt) for row in group)
                    self._ended(self._decoder.admit(group))
                if self._decoder.busy:
                    self._ended(self._decoder.step())
            except Exception as error:
                self._fail(group, error)

    def _fail(self, group: Sequence[Row], error: Exception) -> None:
        """A pass failed (out of memory, a broken model): end what it concerned, say why, and go on with an empty batch."""
        for row in {id(row): row for row in [*self._decoder.reset(), *group]}.values():
            if id(row) in self._answers:
                self._answers[id(row)].failure = f"{type(error).__name__}: {error}"
                row.finish = "error"
                self._ended([row])
