"""Figures with their kind, and usage."""

import pytest

from shoestring.measure import (
    Kind,
    Quantity,
    Usage,
    counted,
    estimated,
    find,
    human,
    measured,
    no_usage,
    predicted,
    predicted_usage,
    total,
    unknown,
)
from shoestring.measure.usage import PROCESS_BYTES


def test_kinds_and_units_are_never_summed_silently() -> None:
    with pytest.raises(ValueError, match="can't add"):
        measured(1, "s") + predicted(1, "s")
    with pytest.raises(ValueError, match="can't add"):
        measured(1, "s") + measured(1, "B")
    assert (measured(1, "s") + measured(2, "s")).value == 3


def test_unknown_stays_unknown_with_its_reason() -> None:
    missing = unknown("J", "no counter")
    assert (measured(1, "J") + missing).value is None
    assert (measured(1, "J") + missing).method == "no counter"
    assert str(missing) == "unknown"


def test_an_estimate_has_an_interval_of_forty_percent_at_least() -> None:
    assert estimated(100, "J", "watts", spread=0.1).interval == (60, 140)
    assert (estimated(100, "J", "a") + estimated(50, "J", "a")).interval == (90, 210)
    assert estimated(100, "J", "a").scaled(2).interval == (120, 280)


def test_records_survive_json() -> None:
    for quantity in (estimated(3, "J", "x"), unknown("B", "why"), measured(1.5, "s")):
        assert Quantity.from_json(quantity.to_json()) == quantity
    usage = predicted_usage(seconds=2, hardware=find("h200"), flops=1e9)
    assert Usage.from_json(usage.to_json()) == usage


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.02, "s", "20 ms"),
        (125, "s", "2 min 05 s"),
        (1536, "B", "1.5 KiB"),
        (3.2e9, "FLOP", "3.2 GFLOP"),
        (0.0012, "USD", "$0.0012"),
    ],
)
def test_figures_for_people(value: float, unit: str, text: str) -> None:
    assert human(value, unit) == text


def test_predicted_usage_follows_from_time_and_device() -> None:
    gpu = find("h200").with_(count=2)
    usage = predicted_usage(seconds=3600, hardware=gpu, peak_memory=1e9)
    assert usage.energy.value == 3600 * 700 * 2
    assert usage.money.value == pytest.approx(2 * gpu.price_per_hour)
    assert usage.carbon.value == pytest.approx(1.4 * gpu.carbon_per_kwh)
    assert usage.peak_memory.value == 1e9
    assert usage.flops.value is None


def test_on_a_cpu_the_process_itself_counts_towards_the_peak() -> None:
    cpu = find("cpu")
    assert predicted_usage(seconds=1, hardware=cpu, peak_memory=1e6).peak_memory.value == 1e6 + PROCESS_BYTES
    known = cpu.with_(reached={"process.bytes": 5e8})
    assert predicted_usage(seconds=1, hardware=known, peak_memory=1e6).peak_memory.value == 5.01e8


def test_usage_adds_up_and_memory_is_the_larger_one() -> None:
    first = predicted_usage(seconds=1, hardware=find("h200"), flops=1, peak_memory=5)
    second = predicted_usage(seconds=2, hardware=find("h200"), flops=2, peak_memory=3)
    both = no_usage(Kind.PREDICTED).then(first).then(second)
    assert (both.seconds.value, both.flops.value, both.peak_memory.value) == (3, 3, 5)


def test_a_total_over_mixed_kinds_takes_the_weakest_and_says_so() -> None:
    base = predicted_usage(seconds=1, hardware=find("h200"))
    parts = [
        base.with_(energy=measured(5, "J"), flops=counted(1, "FLOP")),
        base.with_(energy=estimated(10, "J", "watts"), flops=unknown("FLOP", "not counted", Kind.COUNTED)),
    ]
    summed = total(parts)
    assert summed.energy.kind is Kind.ESTIMATED
    assert summed.energy.value == 15
    assert "1 measured + 1 estimated" in summed.energy.method
    assert summed.flops.value == 1
    assert "1 of 2 parts unknown" in summed.flops.method
    assert total([]).seconds.value is None
