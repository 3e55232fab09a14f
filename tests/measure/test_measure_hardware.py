"""The catalogue, detection, and the stored calibration."""

import json
import time
from pathlib import Path

import pytest

from shoestring.errors import DeviceError, FileError, SettingError
from shoestring.measure import CATALOGUE, Hardware, calibrate, calibration_file, detect, find, home, threads
from shoestring.measure import calibration as room
from shoestring.measure.calibration import timed


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(room, "PROBES", {"toy": lambda hardware: {"matmul.fp32": 1e9}})
    monkeypatch.setattr(room, "square_rate", lambda device, dtype, seconds=0.0: 1e9)
    monkeypatch.setattr(room, "APART", 0.0)
    monkeypatch.setattr(room, "busy_cores", lambda: 0.0)


def test_names_are_found_however_they_are_written() -> None:
    assert find("RTX 4090").name == "rtx4090"
    assert find("NVIDIA H200").name == "h200"
    with pytest.raises(SettingError, match="did you mean 'h200'"):
        find("h20")


def test_every_device_has_figures_that_make_sense() -> None:
    for name, hardware in CATALOGUE.items():
        assert hardware.name == name
        assert hardware.peak["fp32"] > 0
        assert hardware.bandwidth > 1e10
        assert hardware.memory > 1e9
        assert hardware.watts > 0
        assert hardware.price_per_hour > 0
    assert "bf16" not in find("v100").peak


def test_a_rate_is_measured_or_a_share_of_the_peak() -> None:
    cpu = find("cpu")
    assert cpu.rate("fp32") == 0.5 * cpu.peak["fp32"]
    assert cpu.with_(reached={"matmul.fp32": 7.0}).rate("fp32") == 7.0
    assert cpu.figure("copy", 3.0) == 3.0


def test_this_machine_is_detected() -> None:
    here = detect("cpu")
    assert here.device == "cpu"
    assert here.memory > 1e8
    assert f"x{threads()}" in here.name
    assert here.calibrated == ""
    with pytest.raises(DeviceError, match="allowed: auto, cpu, cuda"):
        detect("tpu")


def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads() == 1


def test_a_calibration_is_kept_and_only_what_is_missing_is_measured() -> None:
    calls = []

    def probe(hardware: Hardware) -> dict[str, float]:
        calls.append(hardware.reached)
        return {"train.x": 2.0}

    first = calibrate(detect("cpu"), {"train": probe})
    assert first.reached == {"matmul.fp32": 1e9, "train.x": 2.0}
    assert first.calibrated
    assert calls == [{"matmul.fp32": 1e9}]
    again = calibrate(detect("cpu"), {"train": probe})
    assert len(calls) == 1
    assert again.calibrated == first.calibrated
    assert detect("cpu").reached == first.reached
    calibrate(detect("cpu"), {"train": probe, "other": lambda hardware: {"other": 1.0}})
    assert len(calls) == 1
    calibrate(detect("cpu"), {"train": probe}, fresh=True)
    assert len(calls) == 2


def calibrated_at(monkeypatch: pytest.MonkeyPatch, *rates: float) -> tuple[int, list[str]]:
    """Calibrate at 1e9 FLOP/s, then again while the looks at the machine give these rates in turn; how often it was measured."""
    calls: list[int] = []

    def probe(hardware: Hardware) -> dict[str, float]:
        calls.append(1)
        return {"train.x": 2.0}

    probes = {"train": probe}
    notes: list[str] = []
    calibrate(detect("cpu"), probes)
    given = iter(rates)
    last = [rates[-1]]
    monkeypatch.setattr(room, "square_rate", lambda device, dtype, seconds=0.0: next(given, last[0]))
    calibrate(detect("cpu"), probes, note=notes.append)
    return len(calls), notes


def test_a_machine_of_another_speed_is_measured_again_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, notes = calibrated_at(monkeypatch, 1.25e9)
    assert measured == 2
    assert "1.2 times faster than when it was calibrated" in notes[0]
    assert "cores busy then" in notes[0]
    assert "measuring it again" in notes[0]
    assert "(1 of 2)" in notes[1]


def test_a_machine_that_has_become_busy_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, notes = calibrated_at(monkeypatch, 0.5e9)
    assert measured == 2
    assert "2 times slower" in notes[0]


@pytest.mark.parametrize(
    "rates",
    [
        (1.1e9,),  # less than any machine varies by
        (0.5e9, 0.5e9, 0.5e9, 1e9),  # slow for a moment, gone at the second look
        (0.6e9, 0.75e9, 1.1e9, 1e9),  # looks that differ more among themselves than from what is stored
        (0.5e9, 0.5e9, 0.5e9, 2e9),  # first slower, then faster
    ],
)
def test_passing_noise_is_not_taken_for_a_change(monkeypatch: pytest.MonkeyPatch, rates: tuple[float, ...]) -> None:
    assert calibrated_at(monkeypatch, *rates) == (1, [])


@pytest.mark.parametrize(
    "change",
    [
        lambda record: {**record, "versions": {**record["versions"], "torch": "0.1"}},
        lambda record: {**record, "versions": {**record["versions"], "format": "0"}},
        lambda record: {**record, "probes": {"toy": {"matmul.fp32": "fast"}}},
        lambda record: {**record, "probes": {"toy": {"matmul.fp32": -1}}},
        lambda record: {**record, "probes": 3},
        lambda record: {**record, "trial": {"rate": 0, "spread": 1}},
        lambda record: {**record, "busy": None},
        lambda record: {"date": "now"},
        lambda record: [],
    ],
)
def test_a_stale_or_broken_calibration_is_refused_and_made_again(change) -> None:
    here = calibrate(detect("cpu"))
    file = calibration_file(here)
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert detect("cpu").calibrated == ""
    notes: list[str] = []
    assert calibrate(detect("cpu"), note=notes.append).reached == {"matmul.fp32": 1e9}
    assert "measuring this machine again" in notes[0]
    assert str(file) in notes[0]


def test_cut_off_calibration_is_no_calibration() -> None:
    file = calibration_file(calibrate(detect("cpu")))
    file.write_bytes(file.read_bytes()[:20] + b"\xff")
    assert detect("cpu").calibrated == ""


def test_a_home_that_cannot_be_written_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path / "file"))
    assert home() == tmp_path / "file"
    with pytest.raises(FileError, match="file"):
        calibrate(detect("cpu"))


def test_timing_takes_the_median() -> None:
    assert timed(lambda: None, seconds=0.0, least=3) < 0.1


def test_the_own_probes_find_plausible_rates() -> None:
    here = find("cpu")
    home().mkdir(parents=True)
    rates = room.matmul_rates(here.with_(device="cpu"))
    assert rates["matmul.fp32"] == 1e9
    assert rates["copy"] > 1e7
    assert room.text_rate(here)["text"] > 1e5
    assert room.disk_rate(here)["disk.write"] > 1e5


def test_a_slow_call_is_timed_once() -> None:
    """A product in an emulated precision takes seconds: calibration must not take minutes for it."""
    calls = []

    def slow() -> None:
        calls.append(1)
        time.sleep(0.03)

    assert timed(slow, seconds=0.01) >= 0.03
    assert len(calls) == 2
    assert timed(lambda: calls.append(1), seconds=0.01, least=5) < 0.03
    assert len(calls) >= 2 + 2 + 5
