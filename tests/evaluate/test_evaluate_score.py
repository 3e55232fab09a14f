"""Documents' scores by a model: against scoring one place at a time, and on the way to a selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shoestring.data import Corpus, Select, scores
from shoestring.data.documents import read
from shoestring.errors import SettingError
from shoestring.evaluate import ScoreDocuments, document_bits
from shoestring.measure import find
from shoestring.model import Transformer
from shoestring.technique import Sketch, Task, Watch
from shoestring.tokenizer import Tokenizer


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tokenizer", "begun"])
def test_bits_are_those_of_scoring_one_place_at_a_time(kind: str, model: Transformer, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    texts, context = ["the cat", "naïve 日本 the then", "x", ""], 6
    found, count = document_bits(model, tokenizer, texts, context)
    for text, bits in zip(texts, found, strict=True):
        nats, own = 0.0, tokenizer.encode(text)
        for start in range(0, len(own), context):
            before = tokenizer.prefix or ([tokenizer.end, *own][start],)
            for place in range(start, min(start + context, len(own))):
                logits_V = model(torch.tensor([[*before, *own[start:place]]]))[0, -1].double()
                nats += float(logits_V.logsumexp(0) - logits_V[own[place]])
        assert bits == pytest.approx(nats / math.log(2) / max(1, len(text.encode())), rel=1e-4)
    assert count == sum(len(tokenizer.encode(text)) for text in texts)


def test_a_context_without_room_is_one_line(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(SettingError, match=r"score\.context: 0 tokens have no room"):
        document_bits(model, tokenizer, ["the"], 0)


def test_a_corpus_is_scored_then_selected(tmp_path: Path, checkpoint: Path, work: Callable[..., tuple[Task, Watch]]) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"text": "{word * 9}"}}\n' for word in ("the ", "q7", "cat ", "zz")))
    state = Corpus(source=str(tmp_path / "in.jsonl")).apply({"checkpoint": checkpoint}, *work("corpus"))
    task, watch = work("scores")
    with watch.meter as meter:
        state = ScoreDocuments(context=16, limit=8).apply(state, task, watch)
    assert "scores" in state
    [batch] = scores.read(state["scores"], "perplexity")
    values = batch.column("value").to_pylist()
    chosen = Select(rule="threshold", most=sorted(values)[1]).apply(state, *work("chosen"))
    [kept] = read(chosen["corpus"], ("id",))
    assert kept.column("id").to_pylist() == [id_ for id_, value in zip(*batch.to_pydict().values()) if value <= sorted(values)[1]]
    assert meter.usage.flops.value > 0


def test_the_prediction_grows_with_what_is_read(model: Transformer) -> None:
    sketch = Sketch(text_bytes=1e6, documents=100.0, model=model.config)
    whole, part = (ScoreDocuments(limit=limit).predict(sketch, find("cpu")).usage.flops.value for limit in (None, 1000))
    assert whole / part == pytest.approx(10, rel=0.1)
    with pytest.raises(SettingError, match="score: needs a checkpoint"):
        ScoreDocuments().predict(Sketch(text_bytes=1.0), find("cpu"))
