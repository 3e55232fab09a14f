"""Scaling laws: published figures, the optimum against a search, repeated text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.plan import rules
from shoestring.plan.laws import EXCESS_PARAMETERS, LAWS, REPEATED_TOKENS, Law, worth

BOTH = pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.name)


def test_published_losses() -> None:
    # Chinchilla and Gopher, arXiv 2203.15556: 1.69 + 0.083 + 0.163 and 1.69 + 0.052 + 0.251 (section D.3).
    law = LAWS["hoffmann"]
    assert law.loss(70e9, 1.4e12) == pytest.approx(1.936, abs=2e-3)
    assert law.loss(280e9, 300e9) == pytest.approx(1.993, abs=2e-3)


def test_published_balance() -> None:
    # arXiv 2404.10102: the refit agrees with about 20 tokens a parameter at Chinchilla's computation.
    N, D = LAWS["besiroglu"].optimum(5.76e23)
    assert 18 < D / N < 24


@BOTH
@pytest.mark.parametrize("flops", [1e15, 1e19, 6e23])
def test_the_optimum_is_that_of_a_search(law: Law, flops: float) -> None:
    N, D = law.optimum(flops)
    sizes = N * np.geomspace(0.2, 5, 4001)
    losses = [law.loss(size, flops / 6 / size) for size in sizes]
    assert pytest.approx(flops / 6) == N * D
    assert sizes[int(np.argmin(losses))] == pytest.approx(N, rel=2e-3)
    assert law.parameters_for(D) == pytest.approx(N)
    assert law.tokens_for(N) == pytest.approx(D)


@given(unique=st.floats(1e3, 1e12), epochs=st.floats(0.01, 1000))
def test_repeated_tokens_are_worth_less_but_never_harm(unique: float, epochs: float) -> None:
    read = unique * epochs
    valued = worth(unique, read, REPEATED_TOKENS)
    assert valued <= read * (1 + 1e-12)
    assert valued <= unique * (1 + REPEATED_TOKENS) * (1 + 1e-12)
    assert worth(unique, read * 1.1, REPEATED_TOKENS) >= valued * (1 - 1e-12)
    if epochs <= 1:
        assert valued == read


def test_four_epochs_are_nearly_as_good_as_new_text() -> None:
    assert worth(1e9, 4e9, REPEATED_TOKENS) / 4e9 > 0.92  # arXiv 2305.16264, section 1
    assert worth(1e9, 100e9, REPEATED_TOKENS) / 100e9 < 0.17


@BOTH
def test_excess_parameters_count_only_when_text_repeats(law: Law) -> None:
    unique = 1e9
    fitting = law.parameters_for(unique)
    assert law.loss_on(fitting * 50, unique, unique) == law.loss(fitting * 50, unique)
    held = worth(fitting, fitting * 50, EXCESS_PARAMETERS)
    useful = worth(unique, 5 * unique, REPEATED_TOKENS)
    assert law.loss_on(fitting * 50, 5 * unique, unique) == pytest.approx(law.loss(held, useful))


def test_no_quality_is_predicted_far_below_the_runs_of_the_law() -> None:
    law = LAWS["besiroglu"]
    assert law.bits_per_byte(1e6, 2e7, math.inf) is None
    told = law.bits_per_byte(124e6, 2.5e9, math.inf)
    assert told is not None
    value, (low, high) = told
    assert low < value < high
    assert 0.8 < value < 1.4


def test_step_law_figures() -> None:
    # arXiv 2503.04715, equation 1: 1.79 N^-0.713 D^0.307 and 0.58 D^0.571.
    assert rules.batch_tokens(1e11) == pytest.approx(0.58 * 10 ** (11 * 0.571))
    assert rules.learning_rate(1e9, 1e11) == pytest.approx(1.79 * 10 ** (-9 * 0.713 + 11 * 0.307))
    assert rules.learning_rate(1e5, 1e9) == rules.HIGHEST_RATE
