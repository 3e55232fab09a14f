"""Fidelity and the paired bootstrap."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from shoestring.errors import SettingError
from shoestring.evaluate import bits_per_byte, fidelity, likelihood, paired_bootstrap
from shoestring.evaluate.agreement import divergence
from shoestring.model import Transformer
from shoestring.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def changed(model: Transformer) -> Transformer:
    other = Transformer(model.config)
    other.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    for parameter in other.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return other


def test_a_model_is_faithful_to_itself(model: Transformer, tokenizer: Tokenizer, text: str) -> None:
    found = fidelity(model, model, tokenizer.encode(text), context=40)
    assert found.divergence == pytest.approx(0, abs=1e-9)
    assert found.agreement == 1.0


def test_fidelity_is_the_naive_one(
    model: Transformer, changed: Transformer, tokenizer: Tokenizer, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokenizer.encode(text)[:120]
    monkeypatch.setitem(likelihood.LOGIT_BYTES, "cpu", 4 * 260 * 14)
    found = fidelity(changed, model, tokens, context=40)
    windows = torch.tensor(tokens).view(3, 40)[:, :-1]
    p, q = model(windows).double().log_softmax(-1), changed(windows).double().log_softmax(-1)
    summed = (p.exp() * (p - q)).sum(-1)
    assert found.tokens == 3 * 39
    assert found.divergence == pytest.approx(summed.mean().item(), rel=1e-4)
    assert found.agreement == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())
    assert found.window_divergences == pytest.approx(summed.sum(1).tolist(), rel=1e-4)
    assert set(found.quantities()) == {"divergence", "agreement"}


def test_divergence_against_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(7, 30, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    expected = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x) for x in (p, q)))
    torch.testing.assert_close(divergence(p, q), expected)


def test_vocabularies_must_agree(model: Transformer) -> None:
    other = Transformer(model.config.with_(vocabulary=300)).initialise()
    with pytest.raises(SettingError, match="vocabulary of 300, the model 260"):
        fidelity(model, other, [1, 2, 3])


def test_bootstrap_is_the_naive_loop() -> None:
    generator = np.random.default_rng(3)
    a, b, w = generator.normal(1, 1, 12), generator.normal(0.8, 1, 12), generator.integers(1, 5, 12)
    found = paired_bootstrap(a, b, resamples=500, seed=7, weights=w)
    draws = np.random.default_rng(7).integers(12, size=(500, 12))
    expected = [sum(a[i] - b[i] for i in draw) / sum(w[i] for i in draw) for draw in draws]
    assert found.difference == pytest.approx((a - b).sum() / w.sum())
    level = NormalDist().cdf(-math.sqrt(12 / 11) * 2.200985)  # Student's t with 11 degrees of freedom
    assert found.interval == pytest.approx(tuple(np.quantile(expected, [level, 1 - level])), rel=1e-4)
    assert str(found).endswith("over 12 units, within these weights")
    tail = min(sum(x <= 0 for x in expected), sum(x >= 0 for x in expected))
    assert found.p_value == pytest.approx(min(1, 2 * (tail + 1) / 501))
    assert paired_bootstrap(a, b, resamples=500, seed=7, weights=w) == found


def test_bootstrap_keeps_its_level() -> None:
    """Without a difference, about 5 % of comparisons seem significant; with a large one, all do."""
    generator = np.random.default_rng(0)
    significant = 0
    for seed in range(200):
        shared = generator.normal(size=60)
        noise = generator.normal(scale=0.3, size=(2, 60))
        significant += paired_bootstrap(shared + noise[0], shared + noise[1], 500, seed).p_value < 0.05
        assert paired_bootstrap(shared + 1 + noise[0], shared + noise[1], 500, seed).p_value < 0.05
    assert 2 <= significant <= 24
    same = paired_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.difference, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_bootstrap_on_windows(model: Transformer, changed: Transformer, tokenizer: Tokenizer, text: str) -> None:
    ours, theirs = (bits_per_byte(m, tokenizer, text, context=40) for m in (model, changed))
    found = paired_bootstrap(ours.window_losses, theirs.window_losses, 200, weights=ours.window_bytes)
    gap = (ours.bits_per_byte - theirs.bits_per_byte) * np.log(2)
    assert found.difference == pytest.approx(gap)
    assert found.interval[0] <= gap <= found.interval[1]


@pytest.mark.parametrize(
    ("a", "b", "more"),
    [
        ([1.0], [1.0], {}),
        ([1.0, 2.0], [1.0], {}),
        ([1.0, 2.0], [1.0, 3.0], {"weights": [0.0, 0.0]}),
        ([1.0, 2.0], [1.0, 3.0], {"weights": [-1.0, 2.0]}),
        ([1.0, 2.0], [1.0, 3.0], {"resamples": 0}),
    ],
)
def test_bad_bootstraps(a: list, b: list, more: dict) -> None:
    with pytest.raises(SettingError, match="bootstrap"):
        paired_bootstrap(a, b, **more)
