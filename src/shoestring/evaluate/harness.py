"""A model of ours as lm-evaluation-harness sees one (extra `lm-eval`): its tasks, scored by our likelihoods.

import lm_eval
from shoestring.evaluate.harness import harness_model
lm_eval.simple_evaluate(model=harness_model(model, tokenizer), tasks=["arc_easy"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shoestring.errors import DeviceError
from shoestring.evaluate.likelihood import evaluating, likelihoods
from shoestring.evaluate.tasks import continuation_likelihoods, fitted
from shoestring.model import Transformer
from shoestring.tokenizer import Tokenizer

MOST_TOKENS = 256
"""Of an answer, when a task doesn't say (the harness's own default)."""


def harness_model(model: Transformer, tokenizer: Tokenizer) -> Any:
    """An `lm_eval.api.model.LM`: loglikelihood, loglikelihood_rolling, generate_until.

    Raises:
        DeviceError: lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise DeviceError("lm-eval is not installed; pip install 'shoestring[lm-eval]'") from error

    class HarnessModel(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            scored = continuation_likelihoods(model, tokenizer, [request.args for request in requests])
            return [(-one.loss, one.greedy) for one in scored]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return [rolling(model, tokenizer, request.args[0]) for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return answers(model, tokenizer, [request.args for request in requests])

    return HarnessModel()


def rolling(model: Transformer, tokenizer: Tokenizer, text: str) -> float:
    """Log-likelihood of a whole text, nats: each token once, in windows of the model's context, the last one reaching back.

    As in the harness, BOS stands before the first token, or the end of a document without one, whatever the tokenizer's rule.
    """
    tokens, context = [tokenizer.start, *tokenizer.encode(text)], model.config.context
    if len(tokens) < 2:
        return 0.0
    sequences, starts = [], []
    for begin in range(0, len(tokens) - 1, context):
        stop = min(begin + context + 1, len(tokens))
        first = max(0, stop - context - 1)
        sequences.append(tokens[first:stop])
        starts.append(begin + 1 - first)
    return -sum(one.loss for one in likelihoods(model, sequences, starts))


def answers(model: Transformer, tokenizer: Tokenizer, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """What a model says after each context, up to the first of the `until` texts.

    Greedy unless `do_sample` is set; `max_gen_toks`, `temperature`, `top_p` and `top_k` are heeded.
    """
    from shoestring.infer import Sampling, generate, stop_tokens

    context = model.config.context
    prompts, settings = [], []
    for text, options in requests:
        most = min(int(options.get("max_gen_toks", MOST_TOKENS)), context - 1)
        prompts.append(fitted(tokenizer, tokenizer.prompt(text), context - most))
        temperature = float(options.get("temperature", 1.0)) if options.get("do_sample") else 0.0
        more = {key: options[key] for key in ("top_p", "top_k") if options.get(key) is not None}
        settings.append(Sampling(temperature=temperature, max_tokens=most, **more))
    with evaluating(model):
        made = generate(model, prompts, settings, stop_tokens(tokenizer))
    texts = [tokenizer.answer(prompt, answer) for prompt, answer in zip(prompts, made)]
    return [_before(text, options.get("until")) for text, (_, options) in zip(texts, requests)]


def _before(text: str, until: str | Sequence[str] | None) -> str:
    ends = [until] if isinstance(until, str) else list(until or ())
    return text[: min([place for end in ends if end and (place := text.find(end)) >= 0], default=len(text))]
