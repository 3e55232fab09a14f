"""Bits per byte against naive float64 scoring, transformers' loss, and what must hold whatever the model."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.architecture import ModelConfig
from shoestring.errors import SettingError
from shoestring.evaluate import bits_per_byte, likelihood, likelihoods
from shoestring.evaluate.windows import cut, ratio_error
from shoestring.model import Transformer
from shoestring.tokenizer import Tokenizer


def naive(model: Transformer, window: list[int]) -> list[float]:
    """Losses of all tokens but the first, in float64, one position at a time."""
    double = Transformer(model.config).double()
    double.load_state_dict(model.state_dict())
    logits = double(torch.tensor([window[:-1]]))[0].log_softmax(-1)
    return [-logits[place, token].item() for place, token in enumerate(window[1:])]


def test_score_is_the_naive_sum(model: Transformer, tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    windows = [tokens[i : i + 50] for i in range(0, 200, 50)]
    losses = [naive(model, window) for window in windows]
    score = bits_per_byte(model, tokenizer, text, context=50, windows=4)
    total = sum(map(sum, losses))
    size = sum(len(tokenizer.token_bytes(token)) for window in windows for token in window[1:])
    assert score.tokens == 4 * 49
    assert score.bytes == size
    assert score.loss == pytest.approx(total / 196, rel=1e-6)
    assert score.perplexity == pytest.approx(math.exp(total / 196), rel=1e-6)
    assert score.bits_per_byte == pytest.approx(total / size / math.log(2), rel=1e-6)
    assert score.window_losses == pytest.approx([sum(window) for window in losses], rel=1e-6)
    assert "bits per byte" in str(score)


def test_transformers_gives_the_same_loss(checkpoint: Path, model: Transformer, tokenizer: Tokenizer, text: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokens = torch.tensor([tokenizer.encode(text)[:60]])
    with torch.no_grad():
        expected = theirs(tokens, labels=tokens).loss.item()
    assert bits_per_byte(model, tokenizer, tokens[0].numpy(), context=60).loss == pytest.approx(expected, rel=1e-5)


def test_batches_and_chunks_change_nothing(
    model: Transformer, tokenizer: Tokenizer, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bits_per_byte(model, tokenizer, text, context=32)
    monkeypatch.setitem(likelihood.PASS_TOKENS, "cpu", 70)
    monkeypatch.setitem(likelihood.LOGIT_BYTES, "cpu", 4 * 260 * 7)
    assert bits_per_byte(model, tokenizer, text, context=32).window_losses == pytest.approx(whole.window_losses, rel=1e-5)


def test_a_model_that_knows_nothing_pays_for_each_byte(tokenizer: Tokenizer) -> None:
    flat = Transformer(ModelConfig(vocabulary=260, width=16, layers=1, heads=1, context=16))
    for parameter in flat.parameters():
        parameter.data.zero_()
    score = bits_per_byte(flat, tokenizer, "abcdefgh" * 8, context=16)
    assert score.bits_per_byte == pytest.approx(math.log2(260))
    assert score.perplexity == pytest.approx(260)
    assert score.standard_error == pytest.approx(0, abs=1e-6)


def test_sequences_of_any_length_side_by_side(model: Transformer, tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    sequences = [tokens[:40], tokens[3:7], tokens[10:12], tokens[5:36]]
    starts = [1, 3, 1, 20]
    found = likelihoods(model, sequences, starts)
    for sequence, start, one in zip(sequences, starts, found):
        assert one.tokens == len(sequence) - start
        assert one.loss == pytest.approx(sum(naive(model, sequence)[start - 1 :]), rel=1e-5)
    said = model(torch.tensor([tokens[:12]])).argmax(-1)[0, -1].item()
    greedy, other = likelihoods(model, [tokens[:12] + [said], tokens[:12] + [(said + 1) % 256]], [12, 12])
    assert greedy.greedy
    assert not other.greedy


@given(length=st.integers(2, 400), context=st.integers(2, 50), windows=st.none() | st.integers(1, 30), spread=st.booleans())
def test_windows_do_not_overlap(length: int, context: int, windows: int | None, spread: bool) -> None:
    chosen = cut(np.arange(length), context, windows, spread)
    assert 1 <= len(chosen) <= max(1, length // context)
    assert windows is None or len(chosen) <= windows
    flat = np.concatenate(chosen)
    assert len(set(flat.tolist())) == len(flat)
    assert (np.diff(flat) > 0).all()
    if not spread or windows is None:
        assert flat[0] == 0
    if length >= context:
        assert {len(window) for window in chosen} == {context}


def test_spread_reaches_the_end() -> None:
    starts = [window[0] for window in cut(np.arange(1000), 10, 4, spread=True)]
    assert starts == [0, 250, 500, 750]


def test_standard_error_is_what_repetition_shows() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(80, 120, size=(4000, 40))
    losses = sizes * 2.0 + generator.normal(0, 15, size=sizes.shape)
    ratios = losses.sum(1) / sizes.sum(1)
    errors = [ratio_error(list(top), list(bottom)) for top, bottom in zip(losses, sizes)]
    assert np.mean(errors) == pytest.approx(ratios.std(), rel=0.05)
    assert ratio_error([1.0], [1]) is None


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("", {}, "too few"),
        ("a", {}, "too few"),
        ("some text", {"context": 1}, "context: must be at least 2"),
        ("some text", {"windows": 0}, "windows: must be at least 1"),
        ([258, 258, 258], {}, "stand for no byte"),
        ([1, 2, 999], {}, "token 999 is outside"),
    ],
)
def test_bad_input(model: Transformer, tokenizer: Tokenizer, text: str, options: dict, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        bits_per_byte(model, tokenizer, text, **options)


def test_training_mode_is_left_as_it_was(model: Transformer, tokenizer: Tokenizer) -> None:
    model.train()
    bits_per_byte(model, tokenizer, "some text")
    assert model.training
    model.eval()


@pytest.mark.slow
def test_smollm2_on_wikitext() -> None:
    folder = os.environ.get("SHOESTRING_ASSETS")
    if not folder:
        pytest.skip("SHOESTRING_ASSETS is not set")
    from shoestring.evaluate import measure_model
    from shoestring.model import load

    try:
        model, tokenizer = load("smollm2-135m")
    except SettingError:
        pytest.skip("smollm2-135m is not fetched")
    found = measure_model(model, tokenizer, Path(folder) / "corpus" / "wikitext2_raw_test.txt.xz", context=1024, windows=4)
    # The first 32 windows give 24.01 and 1.1244; these are the first 4 of them.
    assert found["perplexity"].value == pytest.approx(23.092, rel=1e-3)
    assert found["bits_per_byte"].value == pytest.approx(1.0709, rel=1e-3)


def test_progress_says_the_share_done(model: Transformer, tokenizer: Tokenizer, text: str) -> None:
    seen: list[tuple[str, float | None]] = []
    bits_per_byte(model, tokenizer, text, context=16, windows=3, progress=lambda said, done=None: seen.append((said, done)))
    assert seen == [("bits per byte: 3 of 3 sequences", 1.0)]
