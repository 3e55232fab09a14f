"""Task scores: which choice a model holds likeliest, whether it would say a continuation, whether it answers word for word.

As lm-evaluation-harness scores them: log-likelihoods of continuations given their contexts; accuracy of the likeliest choice,
raw and per byte of the choice's text (so that long choices are not at a disadvantage). Contexts begin with what the tokenizer
puts before a text. Standard errors are over rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shoestring.evaluate.likelihood import Likelihood, evaluating, likelihoods
from shoestring.evaluate.rows import Cloze, Exact, MultipleChoice, Row, read_rows, task_name
from shoestring.evaluate.windows import before, perplexity, ratio_error
from shoestring.measure import Kind, Quantity
from shoestring.measure.intervals import wilson
from shoestring.model import Transformer
from shoestring.progress import Progress, showing, silent, under
from shoestring.tokenizer import Tokenizer

ROOM = 8
"""Tokens that an answer may be longer than the expected one before it is cut off."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Figures of a task's rows by name, and for each share of rows which of them were right: two models are compared by these."""

    figures: dict[str, Quantity]
    right: dict[str, list[bool]]

    def named(self, task: str) -> Scored:
        """The same with the task's name before each figure's."""
        figures = {f"{task}.{key}": value for key, value in self.figures.items()}
        return Scored(figures, {f"{task}.{key}": value for key, value in self.right.items()})


def task_scores(
    model: Transformer,
    tokenizer: Tokenizer,
    path: Path | str,
    limit: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Quantity]:
    """All figures of one task file, named `<task>.<figure>`.

    Raises:
        FileError: a row that is not as it should be, with file and line.
    """
    with showing(progress) as progress:
        return scored_task(model, tokenizer, path, limit, progress).figures


def scored_task(
    model: Transformer, tokenizer: Tokenizer, path: Path | str, limit: int | None, progress: Progress = silent
) -> Scored:
    """As `task_scores`, with what came of each row."""
    rows, name = read_rows(path, limit), task_name(path)
    return _score(model, tokenizer, rows, under(name, progress)).named(name)


def _score(model: Transformer, tokenizer: Tokenizer, rows: Sequence[Row], progress: Progress) -> Scored:
    choices = [row for row in rows if isinstance(row, MultipleChoice)]
    if choices:
        return _choices(model, tokenizer, choices, progress)
    clozes = [row for row in rows if isinstance(row, Cloze)]
    if clozes:
        return _clozes(model, tokenizer, clozes, progress)
    return _exact(model, tokenizer, [row for row in rows if isinstance(row, Exact)], progress)


def choice_scores(
    model: Transformer, tokenizer: Tokenizer, rows: Sequence[MultipleChoice], progress: Progress = silent
) -> dict[str, Quantity]:
    """`accuracy`: the likeliest option is the right one; `accuracy_normalised`: likeliest per byte."""
    return _choices(model, tokenizer, rows, progress).figures


def _choices(model: Transformer, tokenizer: Tokenizer, rows: Sequence[MultipleChoice], progress: Progress) -> Scored:
    pairs = [option for row in rows for option in row.options]
    scored = iter(continuation_likelihoods(model, tokenizer, pairs, progress))
    raw, normalised = [], []
    for row in rows:
        losses = np.array([next(scored).loss for _ in row.options])
        sizes = np.array([max(1, len(text.strip().encode("utf-8"))) for _, text in row.options])
        raw.append(int(losses.argmin()) == row.gold)
        normalised.append(int((losses / sizes).argmin()) == row.gold)
    return _shares({"accuracy": raw, "accuracy_normalised": normalised}, tokenizer)


def cloze_scores(
    model: Transformer, tokenizer: Tokenizer, rows: Sequence[Cloze], progress: Progress = silent
) -> dict[str, Quantity]:
    """`accuracy`: greedy decoding says the continuation; `perplexity` of the continuations' tokens."""
    return _clozes(model, tokenizer, rows, progress).figures


def _clozes(model: Transformer, tokenizer: Tokenizer, rows: Sequence[Cloze], progress: Progress) -> Scored:
    scored = continuation_likelihoods(model, tokenizer, [(row.context, row.continuation) for row in rows], progress)
    losses, counts = [one.loss for one in scored], [one.tokens for one in scored]
    method = f"{sum(counts)} tokens of {len(rows)} continuations{before(tokenizer, 'each context')}"
    found = perplexity(sum(losses) / sum(counts), method, ratio_error(losses, counts), len(rows))
    shares = _shares({"accuracy": [one.greedy for one in scored]}, tokenizer)
    return Scored({**shares.figures, "perplexity": found}, shares.right)


def exact_scores(
    model: Transformer, tokenizer: Tokenizer, rows: Sequence[Exact], progress: Progress = silent
) -> dict[str, Quantity]:
    """`exact_match`: the greedy answer, up to the end of its line unless the expected one has several, is the expected one.

    White space at the ends and runs of it do not count.
    """
    return _exact(model, tokenizer, rows, progress).figures


def _exact(model: Transformer, tokenizer: Tokenizer, rows: Sequence[Exact], progress: Progress) -> Scored:
    from shoestring.infer import GREEDY, generate, stop_tokens

    context = model.config.context
    prompts, settings = [], []
    for row in rows:
        most = min(len(tokenizer.encode(row.answer)) + ROOM, context - 1)
        prompts.append(fitted(tokenizer, tokenizer.prompt(row.context), context - most))
        settings.append(GREEDY.model_copy(update={"max_tokens": most}))
    made: set[int] = set()

    def on_token(number: int, token: int) -> None:
        made.add(number)
        progress(f"{len(made)} of {len(rows)} answers begun", len(made) / len(rows))

    with evaluating(model):
        answers = generate(model, prompts, settings, stop_tokens(tokenizer), on_token)
    texts = [tokenizer.answer(prompt, answer) for prompt, answer in zip(prompts, answers)]
    right = [_same(text, row.answer) for text, row in zip(texts, rows)]
    return _shares({"exact_match": right}, tokenizer)


def _shares(right: dict[str, list[bool]], tokenizer: Tokenizer) -> Scored:
    prefix = before(tokenizer, "each context")
    return Scored({name: share(rows, prefix) for name, rows in right.items()}, right)


def continuation_likelihoods(
    model: Transformer, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], progress: Progress = silent
) -> list[Likelihood]:
    """How likely each continuation is after its context; contexts are cut at their beginning where both are too long."""
    sequences, starts = [], []
    for context, continuation in pairs:
        known, after = continuation_tokens(tokenizer, context, continuation)
        after = after[-model.config.context :]
        sequence = fitted(tokenizer, known, model.config.context + 1 - len(after)) + after
        sequences.append(sequence)
        starts.append(len(sequence) - len(after))
    return likelihoods(model, sequences, starts, progress)


def continuation_tokens(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of a context and of what follows, as one text is tokenised.

    The context begins with the tokenizer's `prefix`; where there is none, its `start` stands for an empty context.
    Blanks at the context's end belong to the continuation: tokens usually begin with them.
    """
    prefix = list(tokenizer.prefix)
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    if not kept:
        return prefix or [tokenizer.start], tokenizer.encode(continuation) or [tokenizer.end]
    known, whole = tokenizer.encode(kept), tokenizer.encode(kept + continuation)
    after = whole[len(known) :]
    # Where the first token of the continuation would swallow the context's end, the two are tokenised apart.
    return prefix + known, after or tokenizer.encode_after(continuation) or [tokenizer.end]


def fitted(tokenizer: Tokenizer, tokens: list[int], room: int) -> list[int]:
    """A prompt cut to `room` tokens at its beginning, but for what stands before every text."""
    prefix = len(tokenizer.prefix)
    return tokens if len(tokens) <= room else tokens[:prefix] + tokens[len(tokens) - max(0, room - prefix) :]


def share(right: Sequence[bool], prefix: str = "") -> Quantity:
    """A share of rows: standard error sqrt(p (1 - p) / (n - 1)), Wilson's interval; `prefix` stands in its method."""
    count, mean = len(right), sum(right) / len(right)
    error = f"standard error {math.sqrt(mean * (1 - mean) / (count - 1)):.3g}, " if count > 1 else ""
    method = f"share of {count} rows{prefix}; {error}95 % by Wilson's score"
    return Quantity(mean, "", Kind.MEASURED, method, wilson(sum(right), count))


def _same(answer: str, expected: str) -> bool:
    if "\n" not in expected.strip():
        answer = answer.strip().split("\n")[0]
    return " ".join(answer.split()) == " ".join(expected.split())
