"""Generation: equal to naive decoding, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from shoestring.architecture import ModelConfig
from shoestring.errors import SettingError
from shoestring.infer import GREEDY, Sampling, generate
from shoestring.infer.decoder import PREFILL_TOKENS, Row, next_group
from shoestring.model import Transformer

PROMPTS = [[1, 2, 3], [5] * 70, [9, 8, 7, 6, 5], [42]]
Naive = Callable[[list[int], int], list[int]]


def greedy(count: int) -> Sampling:
    return Sampling(temperature=0, max_tokens=count)


def test_greedy_equals_decoding_without_a_cache(model: Transformer, naive: Naive) -> None:
    """100 tokens, so that the cache grows beyond a stride."""
    expected = [naive(prompt, 100) for prompt in PROMPTS]
    assert len({token for answer in expected for token in answer}) > 20, "the test model says too little"
    assert generate(model, PROMPTS, greedy(100)) == expected
    for prompt, answer in zip(PROMPTS, expected):
        assert generate(model, [prompt], greedy(100)) == [answer]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_rows_that_join_late_say_the_same(model: Transformer, batch: int) -> None:
    settings = [Sampling(temperature=1.3, top_k=40, top_p=0.95, max_tokens=10 + 7 * n, seed=n) for n in range(4)]
    assert generate(model, PROMPTS, settings, batch=batch) == generate(model, PROMPTS, settings)


def test_a_seed_gives_its_text_whatever_the_neighbours(model: Transformer) -> None:
    drawn = Sampling(temperature=1.5, max_tokens=30, seed=11)
    alone = generate(model, [PROMPTS[0]], drawn)[0]
    neighbours = [greedy(40), Sampling(temperature=2.0, top_k=3, max_tokens=50), Sampling(top_p=0.5, max_tokens=5)]
    assert generate(model, [PROMPTS[1], PROMPTS[0], PROMPTS[2], PROMPTS[3]], [neighbours[0], drawn, *neighbours[1:]])[1] == alone
    assert generate(model, [PROMPTS[0]], drawn.model_copy(update={"seed": 12}))[0] != alone


def test_stop_tokens_end_an_answer_and_are_left_out(model: Transformer, naive: Naive) -> None:
    whole = naive(PROMPTS[0], 30)
    stop = whole[12]
    assert generate(model, PROMPTS[:2], greedy(30), {stop})[0] == whole[: whole.index(stop)]


def test_tokens_are_told_as_they_are_made(model: Transformer) -> None:
    told: list[tuple[int, int]] = []
    answers = generate(model, PROMPTS, greedy(9), on_token=lambda number, token: told.append((number, token)))
    for number, answer in enumerate(answers):
        assert [token for which, token in told if which == number] == answer
    assert [number for number, _ in told[:4]] == [0, 1, 2, 3]


def test_a_listener_that_fails_stops_the_whole(model: Transformer) -> None:
    def fail(number: int, token: int) -> None:
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        generate(model, PROMPTS, greedy(9), on_token=fail)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([], "prompt 1: empty"),
        ([3, 97], "prompt 1: token 97 is not in the vocabulary; allowed: 0 to 96"),
        ([-1, 3], "prompt 1: token -1 is not in the vocabulary"),
        ([1] * 150, "prompt 1: 150 tokens with max_tokens 64 exceed the model's context of 192 tokens; lower max_tokens to 42"),
        ([1] * 200, "200 tokens with max_tokens 64 exceed the model's context of 192 tokens; shorten the prompt"),
    ],
)
def test_what_can_not_be_answered_is_refused(model: Transformer, prompt: list[int], said: str) -> None:
    with pytest.raises(SettingError) as error:
        generate(model, [[1], prompt], greedy(64))
    assert said in str(error.value)


def test_settings_must_match_the_prompts(model: Transformer) -> None:
    with pytest.raises(SettingError, match="2 settings for 4 prompts"):
        generate(model, PROMPTS, [GREEDY, GREEDY])
    assert generate(model, [], GREEDY) == []


def test_the_whole_context_can_be_used(model: Transformer, naive: Naive) -> None:
    prompt = [7] * 180
    assert generate(model, [prompt], greedy(12)) == [naive(prompt, 12)]


@pytest.mark.parametrize("changes", [{"position": "learned"}, {"feed_forward": "gelu", "norm": "layernorm"}, {"head_norm": True}])
def test_other_parts(changes: dict) -> None:
    config = ModelConfig(vocabulary=61, width=32, layers=1, heads=2, context=80, **changes)
    other = Transformer(config).initialise(1)
    with torch.no_grad():
        other.embedding.weight.mul_(20)
    alone = [generate(other, [prompt[:60]], greedy(20))[0] for prompt in PROMPTS]
    assert generate(other, [prompt[:60] for prompt in PROMPTS], greedy(20)) == alone


def test_a_prefill_is_bounded() -> None:
    from collections import deque

    waiting = deque(Row([1] * (PREFILL_TOKENS // 4), GREEDY) for _ in range(6))
    assert [len(next_group(waiting, 8)) for _ in range(2)] == [4, 2]
    long = deque([Row([1] * (2 * PREFILL_TOKENS), GREEDY), Row([1], GREEDY)])
    assert len(next_group(long, 8)) == 1
