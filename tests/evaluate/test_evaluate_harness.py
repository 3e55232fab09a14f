"""The adapter to lm-evaluation-harness; what it is made of is tested without that package."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from shoestring.errors import DeviceError
from shoestring.evaluate.harness import answers, harness_model, rolling
from shoestring.infer import GREEDY, generate
from shoestring.model import Transformer
from shoestring.tokenizer import Tokenizer


def test_rolling_scores_each_token_once(model: Transformer, tokenizer: Tokenizer, text: str) -> None:
    short = text[:50]
    tokens = torch.tensor([[tokenizer.end, *tokenizer.encode(short)]])
    logits = model(tokens[:, :-1]).double().log_softmax(-1)
    expected = logits.gather(2, tokens[:, 1:, None]).sum().item()
    assert rolling(model, tokenizer, short) == pytest.approx(expected, rel=1e-6)
    assert rolling(model, tokenizer, "") == 0.0
    long = [tokenizer.end, *tokenizer.encode(text[:150])]
    assert 64 < len(long) < 193
    total = 0.0
    for place in range(1, len(long)):  # naive: the context that each token's window leaves it
        block = (place - 1) // 64
        stop = min(block * 64 + 65, len(long))
        window = torch.tensor([long[max(0, stop - 65) : place]])
        total += model(window).double().log_softmax(-1)[0, -1, long[place]].item()
    assert rolling(model, tokenizer, text[:150]) == pytest.approx(total, rel=1e-5)


def test_answers_stop_where_told(model: Transformer, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("The cat")
    whole = tokenizer.decode(generate(model, [prompt], GREEDY.model_copy(update={"max_tokens": 20}))[0])
    options = {"max_gen_toks": 20}
    assert answers(model, tokenizer, [("The cat", options)]) == [whole]
    part = whole[5:7]
    expected = whole[: whole.index(part)]
    assert answers(model, tokenizer, [("The cat", {**options, "until": [part, "never said"]})]) == [expected]
    assert answers(model, tokenizer, [("The cat", {**options, "until": part})]) == [expected]
    drawn = answers(model, tokenizer, [("The cat", {**options, "do_sample": True, "temperature": 5.0, "top_k": 50})])
    assert drawn != [whole]


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_package(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(DeviceError, match="lm-eval is not installed"):
        harness_model(model, tokenizer)


def test_in_the_harness(model: Transformer, tokenizer: Tokenizer) -> None:
    instance = pytest.importorskip("lm_eval.api.instance")
    wrapped = harness_model(model, tokenizer)

    def request(kind: str, *arguments: object) -> object:
        return instance.Instance(request_type=kind, doc={}, arguments=arguments, idx=0)

    ((loglikelihood, greedy),) = wrapped.loglikelihood([request("loglikelihood", "The cat", " sat")])
    assert loglikelihood < 0
    assert isinstance(greedy, bool)
    assert wrapped.loglikelihood_rolling([request("loglikelihood_rolling", "The cat")]) == [rolling(model, tokenizer, "The cat")]
    said = wrapped.generate_until([request("generate_until", "The cat", {"until": ["\n"], "max_gen_toks": 5})])
    assert said == answers(model, tokenizer, [("The cat", {"until": ["\n"], "max_gen_toks": 5})])
