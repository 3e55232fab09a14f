"""A model that gives no finite numbers is refused, instead of being right about everything."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring.errors import NotFinite
from shoestring.evaluate import bits_per_byte, task_scores
from shoestring.evaluate.agreement import fidelity
from shoestring.evaluate.windows import Score
from shoestring.model import Transformer
from shoestring.tokenizer import Tokenizer

ROWS = {
    "choice": {"query": "The cat sat", "choices": ["on the mat", "off"], "gold": 0},
    "cloze": {"context": "The cat sat", "continuation": " on the mat"},
    "exact": {"context": "1 + 1 =", "answer": "2"},
}


@pytest.fixture(params=[math.nan, math.inf])
def broken(request: pytest.FixtureRequest, model: Transformer) -> Transformer:
    made = copy.deepcopy(model)
    with torch.no_grad():
        made.blocks[0].feed_forward.down.weight[3, 5] = request.param
    return made


@pytest.mark.parametrize("kind", sorted(ROWS))
def test_tasks(broken: Transformer, tokenizer: Tokenizer, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "task.jsonl"
    file.write_text(json.dumps(ROWS[kind]) + "\n")
    with pytest.raises(NotFinite, match="finite"):
        task_scores(broken, tokenizer, file)


def test_bits_per_byte_and_fidelity(broken: Transformer, model: Transformer, tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(NotFinite, match="gives no finite numbers on this text"):
        bits_per_byte(broken, tokenizer, text, context=32, windows=2)
    tokens = np.asarray(tokenizer.encode(text))
    for one, other in ((broken, model), (model, broken)):
        with pytest.raises(NotFinite, match="the model or its reference"):
            fidelity(one, other, tokens, 32, 2)


def test_an_interval_beyond_what_a_float_holds_is_cut() -> None:
    score = Score(900.0, 1e304, 800.0, 10, 10, 100.0, 100.0, (4000.0, 4000.0), (5, 5), 5)
    bounds = score.quantities()["perplexity"].interval
    assert bounds is not None
    assert all(map(math.isfinite, bounds))
