"""What a tokenizer puts before a text stands before each window and context that is scored, and the figures say so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring.evaluate import bits_per_byte, fidelity
from shoestring.evaluate.harness import answers, rolling
from shoestring.evaluate.likelihood import likelihoods
from shoestring.evaluate.tasks import continuation_likelihoods, continuation_tokens, task_scores
from shoestring.evaluate.text import file_tokens, heldout_tokens
from shoestring.model import Transformer
from shoestring.tokenizer import Tokenizer
from tests.evaluate.conftest import write_tokens

BOS = 259


def test_each_window_begins_with_it_and_all_its_own_tokens_are_scored(model: Transformer, begun: Tokenizer, text: str) -> None:
    tokens = begun.encode(text)
    score = bits_per_byte(model, begun, text, context=50, windows=4)
    own = [tokens[i : i + 49] for i in range(0, 4 * 49, 49)]
    expected = [one.loss for one in likelihoods(model, [[BOS, *window] for window in own], [1] * 4)]
    assert score.window_losses == pytest.approx(expected)
    assert (score.tokens, score.context) == (4 * 49, 50)
    assert score.bytes == sum(len(begun.token_bytes(token)) for window in own for token in window)
    assert "<s> before each window" in score.quantities()["bits_per_byte"].method


def test_transformers_gives_the_same_loss(
    checkpoint: Path, model: Transformer, begun: Tokenizer, text: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    begun.save(tmp_path)
    ids = torch.tensor([transformers.AutoTokenizer.from_pretrained(tmp_path)(text[:150]).input_ids[:60]])
    with torch.no_grad():
        expected = theirs(ids, labels=ids).loss.item()
    assert bits_per_byte(model, begun, text[:150], context=60, windows=1).loss == pytest.approx(expected, rel=1e-5)


def test_fidelity_sees_the_same_windows(model: Transformer, begun: Tokenizer, text: str) -> None:
    changed = Transformer(model.config).initialise(7)
    tokens = begun.encode(text)[:98]
    found = fidelity(changed, model, tokens, context=50, tokenizer=begun)
    windows = torch.tensor([[BOS, *tokens[:49]], [BOS, *tokens[49:]]])[:, :-1]
    p, q = model(windows).double().log_softmax(-1), changed(windows).double().log_softmax(-1)
    assert found.tokens == 98
    assert found.divergence == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-4)
    assert "<s> before each window" in found.quantities()["agreement"].method


def test_held_out_documents_give_the_windows_of_their_texts(tmp_path: Path, begun: Tokenizer, text: str) -> None:
    documents = [text[:300], text[300:500], text[500:]]
    artifact = write_tokens(tmp_path / "tokens", begun, documents)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    found = heldout_tokens(artifact, begun)
    assert found is not None
    assert BOS not in found
    assert np.array_equal(found, file_tokens(tmp_path / "texts.jsonl", begun))


def test_contexts_begin_with_it(model: Transformer, begun: Tokenizer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert continuation_tokens(begun, "a b ", "c") == ([BOS, *begun.encode("a b")], begun.encode(" c"))
    assert continuation_tokens(begun, "", "c") == ([BOS], begun.encode("c"))
    named = Tokenizer(begun.record | {"post_processor": None}, begun.config)
    assert continuation_tokens(named, "", "c") == ([BOS], named.encode("c"))  # as the harness: BOS, else the end
    assert continuation_tokens(named, "a b", "c")[0] == named.encode("a b")
    long, ending = "the cat " * 40, " sat on a mat"
    expected = [BOS, *begun.encode(long.rstrip() + ending)[-(model.config.context) :]]
    start = len(expected) - len(begun.encode(ending))
    assert continuation_likelihoods(model, begun, [(long.rstrip(), ending)]) == likelihoods(model, [expected], [start])
    row = {"context": "the cat", "answer": "sat"}
    for name, record in {
        "exact": row,
        "cloze": {"context": "the cat", "continuation": "sat"},
        "choice": {"query": "a", "choices": ["b", "c"], "gold": 0},
    }.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
        for figure in task_scores(model, begun, tmp_path / f"{name}.jsonl").values():
            assert "<s> before each context" in figure.method
        for figure in task_scores(model, tokenizer, tmp_path / f"{name}.jsonl").values():
            assert "before" not in figure.method


def harness_windows(tokens: list[int], prefix: int, most: int) -> Iterator[tuple[list[int], list[int]]]:
    """lm-evaluation-harness's rule with one token of context: what is seen, and what of it is predicted."""
    first = min(most, len(tokens))
    yield [prefix, *tokens[: first - 1]], tokens[:first]
    done = first
    while done < len(tokens):
        size = min(len(tokens) - done, most)
        end = done + size
        yield tokens[end - most - 1 : end - 1], tokens[end - size : end]
        done = end


@pytest.mark.parametrize("length", [1, 30, 64, 65, 66, 150])
def test_rolling_is_the_harnesss(model: Transformer, begun: Tokenizer, tokenizer: Tokenizer, text: str, length: int) -> None:
    for one, prefix in ((begun, BOS), (tokenizer, tokenizer.end)):
        total = 0.0
        for seen, predicted in harness_windows(one.encode(text[:length]), prefix, model.config.context):
            logits = model(torch.tensor([seen])).double().log_softmax(-1)[0, -len(predicted) :]
            total += logits.gather(1, torch.tensor(predicted)[:, None]).sum().item()
        assert rolling(model, one, text[:length]) == pytest.approx(total, rel=1e-5)


def test_answers_see_it(model: Transformer, begun: Tokenizer) -> None:
    from shoestring.infer import GREEDY, generate, stop_tokens

    prompt = [BOS, *begun.encode("the cat")]
    [made] = generate(model, [prompt], GREEDY.model_copy(update={"max_tokens": 9}), stop_tokens(begun))
    assert answers(model, begun, [("the cat", {"max_gen_toks": 9})]) == [begun.answer(prompt, made)]
