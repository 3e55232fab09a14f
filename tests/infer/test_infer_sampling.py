"""Sampling: its law, its filters, its settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import SettingError
from shoestring.infer import Sampling
from shoestring.infer.sampling import Chooser, draw, keep
from shoestring.technique import configure

CPU = torch.device("cpu")


def reference(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The distribution, written plainly in float64."""
    scaled = logits.astype(np.float64) / temperature
    order = sorted(range(len(scaled)), key=lambda token: (-scaled[token], token))
    if top_k:
        order = order[:top_k]
    shares = np.exp(scaled - scaled.max())
    total = shares[order].sum()
    kept, mass = [], 0.0
    for token in order:
        if mass >= top_p:
            break
        kept.append(token)
        mass += shares[token] / total
    result = np.zeros_like(shares)
    result[kept] = shares[kept] / shares[kept].sum()
    return result


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 0, 0.8), (1.5, 5, 1.0), (1.2, 6, 0.7)])
def test_draws_follow_the_law(temperature: float, top_k: int, top_p: float) -> None:
    """Chi-square of 40,000 draws against the plain distribution, at a threshold that chance passes 999 times in 1000."""
    logits = np.array([1.0, 0.2, -0.5, 2.0, 0.0, -1.0, 1.3, 0.4])
    count = 40_000
    chooser = Chooser.of([Sampling(temperature=temperature, top_k=top_k, top_p=top_p)], CPU)
    probabilities = chooser.probabilities(torch.tensor(logits)[None])
    uniforms = torch.rand(count, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    seen = np.bincount(draw(probabilities.expand(count, -1), uniforms).numpy(), minlength=len(logits))
    expected = reference(logits, temperature, top_k, top_p) * count
    assert not seen[expected == 0].any()
    possible = expected > 0
    chi_square = ((seen - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 24.32  # 0.999 quantile at 7 degrees of freedom, the most there are here


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=30),
    st.floats(0.2, 3.0),
    st.integers(0, 12),
    st.floats(0.05, 1.0),
)
def test_filtered_distribution_equals_the_plain_one(logits: list[float], temperature: float, top_k: int, top_p: float) -> None:
    one = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    values = torch.tensor(logits)[None]
    found = Chooser.of([one], CPU).probabilities(values)[0].double().numpy()
    expected = reference(np.array(logits, dtype=np.float32), temperature, top_k, top_p)
    # At a boundary of top_p rounding may keep one token more or less, and of two all but equal the other; the mass must hold.
    if ((found > 0) == (expected > 0)).all():
        np.testing.assert_allclose(found / found.sum(), expected, atol=1e-5)
    else:
        shares = reference(np.array(logits, dtype=np.float32), temperature, 0, 1.0)
        most = np.sort(shares)[::-1][: top_k or None].sum()
        assert shares[found > 0].sum() >= top_p * most - 1e-5


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
    none = torch.zeros(1, dtype=torch.long)
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.94, 3), (0.96, 4), (1.0, 4)):
        mask = keep(probabilities.log(), none, torch.tensor([top_p - 1e-9], dtype=torch.float64))
        assert mask.sum() == kept, top_p


def test_equal_logits_go_to_the_lower_number() -> None:
    mask = keep(torch.zeros(1, 5), torch.tensor([2]), torch.tensor([1.0], dtype=torch.float64))
    assert mask.tolist() == [[True, True, False, False, False]]


def test_extreme_temperatures_and_uniforms() -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0]])
    tiny = Chooser.of([Sampling(temperature=1e-30)], CPU)
    assert tiny.choose(logits, [0.999999]).tolist() == [0]
    flat = Chooser.of([Sampling(temperature=1e30)], CPU)
    assert [flat.choose(logits, [u]).item() for u in (0.0, 0.5, 1 - 2**-53)] == [0, 1, 2]
    # Behind the last token that can be drawn nothing is ever found.
    assert draw(torch.tensor([[0.3, 0.7, 0.0]]), torch.tensor([1 - 2**-53], dtype=torch.float64)).item() == 1


def test_greedy_rows_beside_drawn_ones() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0], [0.0, 5.0, 1.0]])
    chosen = Chooser.of([Sampling(temperature=0), Sampling(temperature=5.0)], CPU).choose(logits, [0.0, 0.0])
    assert chosen.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": -1}, "sampling.temperature: input should be greater than or equal to 0, got -1"),
        ({"temperature": float("nan")}, "sampling.temperature: nan is not a finite number"),
        ({"top_p": 0}, "sampling.top_p: input should be greater than 0, got 0"),
        ({"top_p": 1.2}, "sampling.top_p: input should be less than or equal to 1"),
        ({"max_tokens": 0}, "sampling.max_tokens: input should be greater than 0"),
        ({"temprature": 1}, "sampling.temprature: no such setting; did you mean 'temperature'?"),
        ({"seed": 2**63}, "sampling.seed: 9223372036854775808 is larger than any number here may be"),
    ],
)
def test_wrong_settings_are_named(wrong: dict, said: str) -> None:
    with pytest.raises(SettingError) as error:
        configure(Sampling, wrong, "sampling")
    assert said in str(error.value)


def test_a_fresh_seed_differs_and_a_given_one_does_not() -> None:
    assert Sampling(seed=None).uniforms() != Sampling(seed=None).uniforms()
    assert Sampling(seed=7).uniforms() == Sampling(seed=7).uniforms()
