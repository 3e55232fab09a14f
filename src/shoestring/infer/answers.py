"""Answers to a list of prompts, batched and cached: rows wait, join, grow and leave until all are done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch

from shoestring.errors import NotFinite, SettingError
from shoestring.infer.decoder import Decoder, Row, check_prompt, next_group
from shoestring.infer.drafters import DRAFTERS
from shoestring.infer.sampling import Sampling
from shoestring.model import Transformer


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling] | None = None,
    stop: Collection[int] = (),
    on_token: Callable[[int, int], None] | None = None,
    batch: int = 64,
    drafter: str = "none",
    guesses: int = 4,
) -> list[list[int]]:
    """The answer to each prompt, as token numbers without the prompt and without the token that stopped it.

    An answer depends on its prompt, its settings and its seed, not on the batch (up to rounding: a larger matrix product
    may sum in another order). Two equal prompts with one seed give equal answers; for several answers give several seeds.

    Args:
        prompts: token numbers, one list for each row.
        sampling: settings for all rows, or one for each; the defaults of `Sampling` when not given.
        stop: tokens that end an answer.
        on_token: told of each token as it is made: (number of the prompt, token).
        batch: rows decoded together at the most; others wait and join as these end.
        drafter: what guesses the next tokens: "none", or "ngram", which helps where text repeats itself. Answers are the same.
        guesses: of a row at a time, at the most.

    Raises:
        SettingError: names the prompt that is empty, has a token outside the vocabulary, or does not fit the context.
        NotFinite: names the prompt on which the model's logits are NaN or infinite.
    """
    sampling = Sampling() if sampling is None else sampling
    settings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    if len(settings) != len(prompts):
        raise SettingError(f"sampling: {len(settings)} settings for {len(prompts)} prompts; give one, or one for each prompt")
    if batch < 1:
        raise SettingError(f"batch: must be at least 1, got {batch}")
    rows = []
    for number, (prompt, one) in enumerate(zip(prompts, settings)):
        check_prompt(prompt, one, model.config, f"prompt {number}")
        rows.append(Row(prompt, one, frozenset(stop), None if on_token is None else partial(on_token, number)))
    waiting = deque(rows)
    decoder = Decoder(model, min(batch, len(prompts)), DRAFTERS.choose(drafter, "drafter"), guesses)
    with torch.inference_mode():
        while waiting or decoder.busy:
            while waiting and len(decoder.rows) < batch:
                _check(decoder.admit(next_group(waiting, batch - len(decoder.rows))), rows)
            if decoder.busy:
                _check(decoder.step(), rows)
    return [row.tokens for row in rows]


def _check(ended: Sequence[Row], rows: Sequence[Row]) -> None:
    """Raises:
    NotFinite: one of the rows that ended could not be answered.
    """
    for row in ended:
        if row.finish == "error":
            raise NotFinite(f"prompt {next(i for i, each in enumerate(rows) if each is row)}: {row.failure}")
