"""The meter: time, nested peaks, counted work, energy by whichever sensor there is."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shoestring.measure import Kind, Meter, find, running
from shoestring.measure import energy as sensors
from shoestring.measure.energy import RaplSensor
from shoestring.measure.memory import PEAKS, held_heap, reset_resident_peak

CPU = find("cpu")
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def _no_sensor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sensors, "_found", {("cpu", 1): None})
    yield
    assert PEAKS.host == {}


def fill(megabytes: int) -> None:
    np.ones(megabytes * MEGABYTE // 8).sum()


def test_wall_time_is_measured_and_stands_still_afterwards() -> None:
    with Meter(CPU) as meter:
        time.sleep(0.05)
        assert meter.seconds >= 0.05
    assert 0.05 <= meter.usage.seconds.value < 5
    assert meter.usage.seconds.value == meter.usage.seconds.value
    assert meter.usage.seconds.kind is Kind.MEASURED


def test_what_is_counted_inside_counts_outside() -> None:
    with Meter(CPU) as outer:
        outer.count(flops=1)
        assert running() is outer
        with Meter(CPU) as inner:
            inner.count(flops=10, communication=3)
        with outer.child() as second:
            second.count(flops=100)
    assert running() is None
    assert (inner.usage.flops.value, outer.usage.flops.value) == (10, 111)
    assert outer.usage.communication.value == 3
    assert outer.usage.communication.kind is Kind.COUNTED


def test_a_child_counts_from_another_thread() -> None:
    with Meter(CPU) as outer:

        def work() -> None:
            with outer.child() as inner:
                inner.count(flops=7)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert outer.usage.flops.value == 7


def test_nothing_counted_is_unknown_not_zero() -> None:
    with Meter(CPU) as meter:
        pass
    assert meter.usage.flops.value is None
    assert meter.usage.flops.method


def test_the_peak_of_a_block_is_its_own_and_its_parents() -> None:
    if not reset_resident_peak():
        pytest.skip("this kernel doesn't let a process reset its peak")
    with Meter(CPU) as outer:
        with Meter(CPU) as small:
            fill(8)
        with Meter(CPU) as large:
            fill(256)
        with Meter(CPU) as after:
            fill(8)
    peaks = [meter.usage.peak_memory.value for meter in (small, large, after, outer)]
    assert peaks[1] > peaks[0] + 200 * MEGABYTE
    assert peaks[2] < peaks[1] - 200 * MEGABYTE
    assert peaks[3] >= peaks[1]


def test_without_a_counter_energy_is_an_estimate_from_watts() -> None:
    with Meter(CPU) as meter:
        time.sleep(0.02)
    energy = meter.usage.energy
    assert energy.kind is Kind.ESTIMATED
    assert energy.value == pytest.approx(CPU.watts * meter.seconds)
    assert energy.interval == pytest.approx((0.6 * energy.value, 1.4 * energy.value))
    assert meter.usage.money.kind is Kind.ESTIMATED
    assert meter.usage.carbon.value == pytest.approx(energy.value / 3.6e6 * CPU.carbon_per_kwh)


def test_without_watts_energy_and_carbon_are_unknown() -> None:
    with Meter(CPU.with_(watts=0)) as meter:
        pass
    assert meter.usage.energy.value is None
    assert meter.usage.carbon.value is None


def test_a_counter_gives_measured_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counter:
        name = "a counter"
        reading = 100.0

        def joules(self) -> float:
            self.reading += 5.0
            return self.reading

    monkeypatch.setattr(sensors, "_found", {("cpu", 1): Counter()})
    with Meter(CPU) as meter:
        pass
    assert (meter.usage.energy.value, meter.usage.energy.kind) == (5.0, Kind.MEASURED)


def test_rapl_counters_are_added_and_may_go_round(tmp_path: Path) -> None:
    def zone(number: str, name: str, microjoules: int) -> Path:
        folder = tmp_path / f"intel-rapl:{number}"
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(name + "\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        (folder / "max_energy_range_uj").write_text("999999\n")
        return folder / "energy_uj"

    package, _ = zone("0", "package-0", 900_000), zone("0:0", "core", 5)
    memory = zone("0:1", "dram", 100)
    sensor = RaplSensor(tmp_path)
    before = sensor.joules()
    package.write_text("100000\n")  # gone round once: 200,000 further
    memory.write_text("300100\n")
    assert sensor.joules() - before == pytest.approx(0.5)


def test_no_rapl_is_no_sensor(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="RAPL"):
        RaplSensor(tmp_path)


def test_a_failed_block_is_measured_and_raises_its_own_error() -> None:
    meter = Meter(CPU)

    def work() -> None:
        with meter:
            meter.count(flops=1)
            raise KeyError("work")

    with pytest.raises(KeyError):
        work()
    assert meter.usage.flops.value == 1
    assert running() is None


def test_usage_before_the_block_is_a_mistake_in_the_code() -> None:
    with pytest.raises(RuntimeError, match="has not run"):
        _ = Meter(CPU).usage


def test_usage_may_be_asked_while_the_block_runs() -> None:
    with Meter(CPU) as meter:
        meter.count(flops=2)
        assert meter.usage.flops.value == 2
        assert meter.usage.peak_memory.value > 0


def test_a_held_heap_changes_nothing_but_memory() -> None:
    with held_heap():
        assert sum(bytearray(b"\x01" * 1000)) == 1000
