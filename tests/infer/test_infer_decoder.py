"""The decoder's rows: places, gaps, guesses, and steps that are read late."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from shoestring.infer import Sampling, generate
from shoestring.infer.decoder import Decoder, Row
from shoestring.infer.drafters import DRAFTERS, ngram
from shoestring.model import Cache, Transformer

Naive = Callable[[list[int], int], list[int]]


def row(prompt: list[int], count: int, **settings: object) -> Row:
    return Row(prompt, Sampling(**{"temperature": 0, "max_tokens": count, **settings}))


def copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Where rows are moved from and to, from now on."""
    found: list[tuple[int, int]] = []
    whole = Cache.copy

    def copy(self: Cache, source: int, target: int, length: int | None = None) -> None:
        found.append((source, target))
        whole(self, source, target, length)

    monkeypatch.setattr(Cache, "copy", copy)
    return found


@torch.inference_mode()
def test_rows_that_leave_are_replaced_by_the_last(model: Transformer, naive: Naive, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = copies(monkeypatch)
    rows = [row([n + 1, n + 2], 3 if n in (1, 2) else 12) for n in range(5)]
    decoder = Decoder(model, 5)
    decoder.admit(rows)
    while decoder.busy:
        decoder.step()
    assert moved == [(4, 1), (3, 2)]
    assert [each.tokens for each in rows] == [naive(list(each.prompt), each.sampling.max_tokens) for each in rows]


@torch.inference_mode()
def test_many_rows_that_come_and_go_one_by_one_copy_little(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, ended = copies(monkeypatch), 0
    decoder = Decoder(model, 8)
    for number in range(24):
        decoder.admit([row([number + 1], 8)])
        ended += len(decoder.step())
    while decoder.busy:
        ended += len(decoder.step())
    assert ended == 24
    assert len(moved) <= 24


@pytest.mark.parametrize("late", [1, 2])
@torch.inference_mode()
def test_reading_late_changes_nothing(model: Transformer, late: int) -> None:
    """What a GPU does, on a CPU: steps are launched before the tokens of the last are read."""
    stop = generate(model, [[1, 2, 3]], Sampling(temperature=0, max_tokens=20))[0][6]

    def answers(behind: int) -> list[list[int]]:
        rows = [row([1, 2, 3], 20), row([7], 3), row([9, 9], 15, temperature=1.2, seed=5), row([4, 2], 1)]
        rows[0].stop = frozenset({stop})
        decoder = Decoder(model, 4)
        decoder.behind = behind
        ended = decoder.admit(rows)
        while decoder.busy:
            ended += decoder.step()
        assert sorted(map(id, ended)) == sorted(map(id, rows))
        return [each.tokens for each in rows]

    assert answers(late) == answers(0)


@pytest.mark.parametrize("drafter", list(DRAFTERS))
@pytest.mark.parametrize("temperature", [0.0, 1.1])
def test_a_drafter_never_changes_the_text(model: Transformer, drafter: str, temperature: float) -> None:
    prompts = [[1, 2, 3, 1, 2, 3, 1, 2], [5] * 9, [7], [1, 2, 1, 2, 1]]
    settings = [Sampling(temperature=temperature, max_tokens=count, seed=count) for count in (40, 30, 2, 1)]
    assert generate(model, prompts, settings, drafter=drafter) == generate(model, prompts, settings)


@torch.inference_mode()
def test_right_guesses_save_steps_and_wrong_ones_cost_no_token(model: Transformer, naive: Naive) -> None:
    truth = [3, 1, 4, *naive([3, 1, 4], 24)]

    def steps(guess: Callable[[Sequence[int], int], list[int]]) -> int:
        made = row([3, 1, 4], 24)
        decoder, count = Decoder(model, 1, guess, guesses=3), 0
        decoder.admit([made])
        while decoder.busy:
            decoder.step()
            count += 1
        assert made.tokens == truth[3:]
        return count

    assert steps(lambda tokens, count: truth[len(tokens) : len(tokens) + count]) <= 8
    assert steps(lambda tokens, count: [96] * count) == 23


def test_ngram_guesses_what_followed_the_newest_longest_run() -> None:
    assert ngram([1, 2, 3, 9, 1, 2, 3, 8, 7, 1, 2, 3], 2) == [8, 7]
    assert ngram([1, 2, 3, 9, 4, 2, 3], 3) == [9, 4, 2]
    assert ngram([1, 2, 3], 3) == []
    assert ngram([5], 3) == []
