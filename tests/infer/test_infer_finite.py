"""A model whose logits are NaN or infinite ends an answer with an error, that answer alone; it never prints garbage."""

from __future__ import annotations

import math

import pytest
import torch

from shoestring.architecture import ModelConfig
from shoestring.errors import NotFinite
from shoestring.infer import Engine, Sampling, generate
from shoestring.infer.sampling import NONE, Chooser
from shoestring.model import Transformer

BAD = 5
"""A token whose embedding is not finite: prompts without it are answered as ever."""
SETTINGS = [Sampling(temperature=0, max_tokens=4), Sampling(temperature=0.9, top_k=40, top_p=0.9, max_tokens=4)]


@pytest.fixture(params=[math.nan, math.inf])
def broken(request: pytest.FixtureRequest) -> Transformer:
    model = Transformer(ModelConfig(vocabulary=97, width=32, layers=2, heads=4, context=64, tied=False)).initialise(3)
    with torch.no_grad():
        model.embedding.weight[BAD] = request.param
    return model


@pytest.mark.parametrize("sampling", SETTINGS)
def test_generate_names_the_prompt(broken: Transformer, sampling: Sampling) -> None:
    assert len(generate(broken, [[1, 2], [3]], sampling)) == 2
    with pytest.raises(NotFinite, match="prompt 1: the model's logits are not finite on this prompt"):
        generate(broken, [[1, 2], [3, BAD]], sampling)


def test_an_answer_that_breaks_later_says_after_how_many_tokens() -> None:
    model = Transformer(ModelConfig(vocabulary=97, width=32, layers=1, heads=4, context=64, tied=False)).initialise(3)
    [made] = generate(model, [[1, 2]], Sampling(temperature=0, max_tokens=8))
    with torch.no_grad():
        model.embedding.weight[made[0]] = math.nan
    with pytest.raises(NotFinite, match="after 1 tokens"):
        generate(model, [[1, 2]], Sampling(temperature=0, max_tokens=8))


def test_the_engine_ends_that_request_and_goes_on(broken: Transformer) -> None:
    with Engine(broken, slots=4) as engine:
        answers = [engine.submit(prompt, SETTINGS[0]) for prompt in ([1, 2], [BAD], [3], [1, 2])]
        tokens = [list(answer) for answer in answers]
        assert [answer.finish for answer in answers] == ["length", "error", "length", "length"]
        assert "logits are not finite" in answers[1].failure
        assert tokens[1] == []
        assert tokens[0] == tokens[3] == generate(broken, [[1, 2]], SETTINGS[0])[0]
        assert engine.counters.finished == {"length": 3, "error": 1}


def test_a_token_that_is_never_said_is_no_fault() -> None:
    logits_BV = torch.tensor([[0.0, -math.inf, 1.0], [math.nan, 0.0, 1.0], [0.0, math.inf, 1.0], [-math.inf] * 3])
    for sampling in SETTINGS:
        chosen = Chooser.of([sampling] * 4, torch.device("cpu")).choose(logits_BV, [0.9] * 4).tolist()
        assert chosen == [2, NONE, NONE, NONE]
