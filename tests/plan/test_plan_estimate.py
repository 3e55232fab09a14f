"""`shoestring plan`: what a budget buys on a device, without a recipe."""

from __future__ import annotations

import json

import pytest

from shoestring.architecture.counts import parameters
from shoestring.errors import BudgetError, SettingError
from shoestring.measure import find
from shoestring.plan import estimate
from shoestring.plan.allocate import Requested
from shoestring.technique import Budget

HOUR = 3600.0


@pytest.mark.parametrize(
    ("budget", "device", "count", "sizes"),
    [
        (Budget(time=2 * HOUR), "h200", 1, (60e6, 250e6)),  # GPT-2's
        (Budget(time=1000 * HOUR), "h200", 8, (3e9, 15e9)),
        (Budget(money=20.0), "h100", 1, (100e6, 500e6)),
        (Budget(energy=3.6e6), "h200", 1, (50e6, 200e6)),
        (Budget(memory=8e9), "h100", 1, (100e6, 500e6)),  # 16 bytes a parameter and activations
        (Budget(time=HOUR, money=0.5), "rtx4090", 1, (1e6, 100e6)),
    ],
)
def test_a_budget_buys_a_sensible_model(budget: Budget, device: str, count: int, sizes: tuple[float, float]) -> None:
    found = estimate(budget, device, count)
    plan, usage = found.allocation.plan, found.allocation.usage
    assert sizes[0] < parameters(plan.model) < sizes[1]
    assert 10 < plan.tokens / parameters(plan.model) < 60
    for limit, figure in ((budget.time, usage.seconds), (budget.money, usage.money), (budget.energy, usage.energy)):
        assert limit is None or 0 < figure.value <= 0.88 * limit
    assert usage.peak_memory.value <= min(budget.memory or 1e18, find(device).memory)
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record["count"] == count
    assert record["plan"]["steps"] == plan.steps
    text = found.text()
    assert all(formula["name"] in text and formula["source"] in text for formula in found.formulas)
    assert all(word in text for word in ("kWh", "$", "CO2e", "of memory", "not calibrated"))


def test_large_models_on_a_gpu_have_long_sequences() -> None:
    assert estimate(Budget(time=2 * HOUR), "h200").allocation.plan.context == 1024
    assert estimate(Budget(time=1000 * HOUR), "h200", 8).allocation.plan.context == 2048
    assert estimate(Budget(time=1000 * HOUR), "h200", 8, requested=Requested(context=512)).allocation.plan.context == 512


def test_devices_that_train_together_exchange_gradients() -> None:
    alone, together = estimate(Budget(time=2 * HOUR), "h200"), estimate(Budget(time=2 * HOUR), "h200", 4)
    assert alone.allocation.usage.communication.value == 0
    plan, sent = together.allocation.plan, together.allocation.usage.communication
    assert sent.value == pytest.approx(2 * 3 / 4 * 4 * parameters(plan.model) * plan.steps)
    assert "communication" in together.text()
    assert plan.tokens > 1.5 * alone.allocation.plan.tokens


def test_little_text_bounds_the_training() -> None:
    found = estimate(Budget(time=100 * HOUR), "h200", tokens=1e8)
    assert found.allocation.plan.tokens <= 16e8


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(BudgetError, match=r"budget\.time .*short"):
        estimate(Budget(time=1e-3), "h200")
    with pytest.raises(BudgetError, match=r"budget\.memory .*short"):
        estimate(Budget(memory=1e6), "h200")
    with pytest.raises(SettingError, match="did you mean 'h200'"):
        estimate(Budget(time=60), "h2000")
    with pytest.raises(SettingError, match=r"plan\.count"):
        estimate(Budget(time=60), "cpu", 2)
    with pytest.raises(SettingError, match="at least 1"):
        estimate(Budget(time=60), "h200", 0)
    with pytest.raises(SettingError):
        estimate(Budget(), "h200")


def test_this_machine_is_the_default() -> None:
    assert estimate(Budget(time=HOUR)).hardware.count >= 1
