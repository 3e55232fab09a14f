"""Ctrl-C and SIGTERM, sent for real: a word, a status, a restart point that is whole, and no rubbish afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoestring.artifact import verify

RECIPE = """
quality: false
steps:
  - corpus:   {source: text}
  - tokenize: {vocabulary: 300, heldout: 0}
  - pretrain:
      model: {width: 32, layers: 2, heads: 2, context: 32}
      steps: STEPS
      batch_tokens: 128
      checkpoint_every: 0.01
"""
LINE = "stopped; the same command goes on where it stopped"


def _start(folder: Path, *arguments: str, steps: int = 100_000) -> subprocess.Popen[str]:
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / "a.txt").write_text(" ".join(f"The number {number} follows {number - 1}." for number in range(2000)))
    (folder / "stop.yaml").write_text(RECIPE.replace("STEPS", str(steps)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SHOESTRING_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "shoestring", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _points(folder: Path) -> list[Path]:
    return sorted((folder / "runs" / "store" / ".scratch").glob("pretrain-*/train/step-*"))


def _wait(process: subprocess.Popen[str], ready: object) -> None:
    while process.poll() is None and not ready():  # type: ignore[operator]
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_so_and_leaves_a_restart_point_that_is_whole(tmp_path: Path, number: int, status: int) -> None:
    process = _start(tmp_path, "run", "stop.yaml", "--json")
    _wait(process, lambda: _points(tmp_path))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    assert err.splitlines()[-1] == LINE
    assert "Traceback" not in err
    for point in _points(tmp_path):
        verify(point)
    assert list(tmp_path.rglob(".*.draft-*")) == []


def test_what_a_kill_left_is_swept_at_the_next_start_and_restart_points_are_not(tmp_path: Path) -> None:
    process = _start(tmp_path, "run", "stop.yaml")
    _wait(process, lambda: _points(tmp_path))
    process.kill()
    process.communicate()
    store, run = tmp_path / "runs" / "store", tmp_path / "runs" / "stop"
    for place in (store / ".tokens-1.draft-7", run / ".run.json.draft-7", store / ".scratch" / "exact-1"):
        place.mkdir(parents=True)
    (_points(tmp_path)[-1].parent / ".step-9.draft-7").mkdir()
    [corpus] = store.glob("corpus-*/")
    (store / ".scratch" / corpus.name / "walk").mkdir(parents=True)
    (store / ".scratch" / corpus.name / "walk" / "x").write_text("")
    keep = tmp_path / "runs" / ".mine.draft-7"
    keep.write_text("the user's own")
    again = _start(tmp_path, "run", "stop.yaml", steps=100_000)
    said = ""
    assert again.stderr is not None
    while "training goes on at step" not in said and again.poll() is None:
        said += again.stderr.readline()
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    assert again.returncode == 143, said
    assert [path.name.rpartition("-")[0] for path in (store / ".scratch").iterdir()] == ["pretrain"]
    assert list(tmp_path.rglob(".*.draft-*")) == [keep]


def test_a_signal_that_is_ignored_at_the_start_stays_ignored() -> None:
    program = (
        "import os, signal, sys; from shoestring import cli\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with cli._stoppable() as received: os.kill(os.getpid(), signal.SIGINT)\n"
        "assert received == []\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_does_not_go_on_does_not_promise_to() -> None:
    program = (
        "import os, signal, sys; from shoestring import cli\n"
        "cli.app = lambda **more: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.argv = ['shoestring', 'serve', 'x']; cli.main()\n"
    )
    stopped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (stopped.returncode, stopped.stderr) == (143, "stopped\n")


def test_a_commands_own_status_is_kept() -> None:
    program = (
        "import sys, typer; from shoestring import cli\n"
        "def stop(): raise typer.Exit(7)\n"
        "cli.app.command('seven')(stop); sys.argv = ['shoestring', 'seven']; cli.main()\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7
