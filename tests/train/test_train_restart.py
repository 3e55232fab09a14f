"""Killed at any moment, a run goes on bit for bit; a limit of time is kept; damage is found."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from shoestring.errors import FileError
from shoestring.train import Training
from shoestring.train.clock import Clock
from shoestring.train.stepping import STEPPERS

PROGRAM = """
import importlib.util, sys, time, torch
from pathlib import Path
spec = importlib.util.spec_from_file_location("loop", {tests!r})
loop = importlib.util.module_from_spec(spec); spec.loader.exec_module(loop)
class Noise(loop.Callback):
    def after_step(self, model, optimizer, step):
        with torch.no_grad():
            model.final_norm.weight += 1e-3 * torch.randn(32)   # draws from the generator that a restart must restore
        time.sleep({pause})
torch.manual_seed(5)
import shoestring.train.journal; shoestring.train.journal.SAVING = 1e9
model, log = loop.run(steps=40, settings=loop.Training(log_every=7, checkpoint_every={every}), micro_batches=2,
    callbacks=[Noise()], scratch=Path({scratch!r}), note=print, decay=10)
torch.save([p.detach() for p in model.parameters()], {out!r})
torch.save([(e["step"], e["loss"], e["grad_norm"], e["learning_rate"]) for e in log], {out!r} + ".log")
"""


def _start(tmp_path, name, every, pause=0.0):
    program = PROGRAM.format(
        tests=str(Path(__file__).with_name("test_train_loop.py")),
        pause=pause,
        every=every,
        scratch=str(tmp_path / name),
        out=str(tmp_path / f"{name}.pt"),
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)


def test_killed_and_started_again_it_ends_with_the_same_bits(tmp_path):
    whole = _start(tmp_path, "whole", 1000)
    victim = _start(tmp_path, "killed", 0.01, pause=0.05)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert not (tmp_path / "killed.pt").exists()
    last = _start(tmp_path, "killed", 0.01)
    said = last.communicate(timeout=60)[0]
    whole.communicate(timeout=60)
    assert (whole.returncode, last.returncode) == (0, 0)
    assert "training goes on at step" in said
    expected, found = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert torch.load(tmp_path / "whole.pt.log") == torch.load(tmp_path / "killed.pt.log")
    assert len(list((tmp_path / "killed").glob("step-*"))) <= 2


@pytest.fixture
def loop():
    import importlib.util

    spec = importlib.util.spec_from_file_location("naive_loop", Path(__file__).with_name("test_train_loop.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Stop(Exception):
    pass


def _interrupted(loop, scratch, at=9, settings=None, **more):
    """A run that dies in step `at`, with a restart point after every step."""

    class Die(loop.Callback):
        def after_step(self, model, optimizer, step):
            if step == at:
                raise _Stop

    hasty = Training(**(settings or {}), log_every=1, checkpoint_every=1e-9)
    with pytest.raises(_Stop):
        loop.run(scratch=scratch, settings=hasty, callbacks=[Die()], **more)


@pytest.fixture
def _hasty(monkeypatch):
    """Restart points as often as asked, however long they take."""
    from shoestring.train import journal

    monkeypatch.setattr(journal, "SAVING", 1e9)


@pytest.mark.usefixtures("_hasty")
def test_a_damaged_restart_point_is_named_and_the_one_before_it_used(loop, tmp_path):
    expected, _ = loop.run()
    _interrupted(loop, tmp_path)
    points = sorted(tmp_path.glob("step-*"))
    assert [point.name for point in points] == ["step-000000008", "step-000000009"]
    file = points[-1] / "rank-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    notes = []
    model, _ = loop.run(scratch=tmp_path, note=notes.append)
    assert any("step-000000009" in text and "damaged" in text for text in notes)
    assert "training goes on at step 8 of 12" in notes
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("name", STEPPERS)
def test_every_way_to_step_learns_and_goes_on_bit_for_bit(loop, tmp_path, name):
    settings = {"stepper": name}
    torch.manual_seed(1)
    expected, log = loop.run(steps=20, settings=Training(**settings, log_every=1))
    assert min(entry["loss"] for entry in log[-3:]) < log[0]["loss"] - 0.1
    torch.manual_seed(1)
    _interrupted(loop, tmp_path, steps=20, settings=settings)
    torch.manual_seed(2)  # the generator is restored too
    model, _ = loop.run(steps=20, settings=Training(**settings, log_every=1), scratch=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))


@pytest.mark.usefixtures("_hasty")
def test_a_restart_point_of_other_settings_is_left_alone(loop, tmp_path):
    _interrupted(loop, tmp_path)
    notes = []
    expected, _ = loop.run(learning_rate=1e-3)
    model, _ = loop.run(learning_rate=1e-3, scratch=tmp_path, note=notes.append)
    assert any("other settings" in text for text in notes)
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))


def test_a_place_that_cannot_be_written_ends_in_one_line(loop, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="not a folder"):
        loop.run(scratch=tmp_path / "file" / "scratch", settings=Training(checkpoint_every=1e-9))


class _Time:
    """A clock that only steps move."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clockwork(monkeypatch):
    from shoestring.train import clock

    fake = _Time()
    monkeypatch.setattr(clock, "time", fake)
    return fake


def _taking(loop, fake, seconds, die=-1):
    """A callback that makes every step last so long."""

    class Slow(loop.Callback):
        def after_step(self, model, optimizer, step):
            fake.now += seconds(step)
            if step == die:
                raise _Stop

    return Slow()


@pytest.mark.parametrize("pace", [lambda step: 0.5, lambda step: 0.5 + 0.005 * step, lambda step: 3.0 if step % 10 == 0 else 0.3])
def test_the_limit_of_time_is_kept_and_the_decay_complete(loop, clockwork, pace):
    notes = []
    _, log = loop.run(steps=500, decay=20, time_limit=60, callbacks=[_taking(loop, clockwork, pace)], note=notes.append)
    assert 45 < log[-1]["seconds"] <= 60
    assert "training ends at step" in notes[0]
    assert "limit of 60 s" in notes[0]
    assert log[-1]["learning_rate"] < 0.4 * 5e-3
    assert max(entry["learning_rate"] for entry in log) == 5e-3


def test_a_limit_that_is_far_away_changes_nothing(loop):
    expected, _ = loop.run()
    model, _ = loop.run(time_limit=1e4)
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))


@pytest.mark.usefixtures("_hasty")
def test_time_spent_before_a_kill_counts_and_a_decision_holds(loop, tmp_path, clockwork):
    settings = Training(log_every=1, checkpoint_every=1e-9)
    common = {"steps": 300, "decay": 20, "settings": settings, "scratch": tmp_path, "time_limit": 60.0}
    notes: list[str] = []
    with pytest.raises(_Stop):
        loop.run(**common, note=notes.append, callbacks=[_taking(loop, clockwork, lambda step: 1.0, die=30)])
    assert any("instead of 300" in text for text in notes)
    clockwork.now += 1000  # between two processes no time counts
    _, log = loop.run(**common, note=notes.append, callbacks=[_taking(loop, clockwork, lambda step: 1.0)])
    assert 50 < log[-1]["seconds"] <= 60
    assert log[-1]["step"] == len(log)
    assert sum("instead of" in text for text in notes) == 1


def test_clock_counts_what_was_spent_before():
    clock = Clock(10.0)
    assert clock.elapsed >= 10
    assert clock.pace is None
    assert clock.steps_left(5, limit=9) == 0
    assert clock.steps_left(5, limit=100) == 5


def test_the_hash_of_a_run_is_the_same_twice(loop):
    def digest():
        model, _ = loop.run()
        return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()

    assert digest() == digest()


@pytest.mark.usefixtures("_hasty")
def test_a_full_disk_costs_training_its_restart_points_and_nothing_else(loop, small_disk):
    expected, _ = loop.run()
    (small_disk / "other").write_bytes(b"\0" * (960 << 10))
    notes = []
    settings = Training(checkpoint_every=1e-9)
    model, _ = loop.run(scratch=small_disk / "train", settings=settings, note=notes.append)
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))
    assert len(notes) == 1
    assert "training goes on without a new restart point" in notes[0]
    assert "no space left" in notes[0]
    assert list((small_disk / "train").rglob("*")) == []


def test_a_training_that_a_budget_cut_says_so():
    from shoestring.train import cut

    log = [{"step": 30}]
    assert cut(log, 30, None) == {}
    assert cut(log, 100, None) == {"cut": {"steps": 30, "of": 100}}
    assert cut(log, 100, 60.0) == {}
