"""The probe of checkpoints: real ones are written and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring.architecture import ModelConfig, cost
from shoestring.measure import find
from shoestring.measure.counts import seconds
from shoestring.model import probe


def test_the_probe_reads_and_writes_real_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "VOCABULARY", 300)
    monkeypatch.setattr(probe, "WIDTHS", (32, 64))
    taken = iter([1.0, 1.5, 3.0, 4.5])  # read and written, of the small one and the large one
    monkeypatch.setattr(probe, "timed", lambda work, seconds: (work(), next(taken))[1])
    found = probe.probe(find("cpu"))
    assert found.keys() == {*cost.ASSUMED, "checkpoint.error"}
    assert found["checkpoint.written"] > 0
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    config = ModelConfig(vocabulary=300, width=64, layers=3, heads=2, context=256)
    again = seconds(cost.checkpoint_counts(config, written=1), cost.ASSUMED, find("cpu").with_(reached=found))
    assert again == pytest.approx(4.5, rel=0.3)


def test_a_unit_that_is_lost_in_noise_stays_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "VOCABULARY", 300)
    monkeypatch.setattr(probe, "WIDTHS", (32, 64))
    taken = iter([2.0, 2.5, 1.0, 3.0])  # the larger one is read in less time
    monkeypatch.setattr(probe, "timed", lambda work, seconds: (work(), next(taken))[1])
    assert "checkpoint.read" not in probe.probe(find("cpu"))
