"""A whole life in small: the command line carries a recipe out, is killed in the middle, goes on, and ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoestring.artifact import verify

RECIPE = """
quality: {context: 32, windows: 4}
steps:
  - corpus:   {source: text}
  - exact
  - tokenize: {vocabulary: 300, heldout: 0.2}
  - pretrain:
      model: {width: 32, layers: 2, heads: 2, context: 32}
      steps: 120
      batch_tokens: 128
      learning_rate: 0.003
      checkpoint_every: 0.05
  - wanda:    {sparsity: 0.5, samples: 4, length: 32}
  - distil:   {teacher: pretrain, tokens: 2000}
  - gptq:     {bits: 4, group_size: 32, samples: 4, length: 32}
  - sample:   {prompts: ["The"], max_tokens: 8}
"""


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SHOESTRING_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "shoestring", "run", "life.yaml", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(folder: Path, *arguments: str) -> dict:
    process = _start(folder, *arguments, "--json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)


def _checksums(folder: Path) -> dict[str, dict]:
    """The files of every stored artifact, with their sizes and checksums."""
    found = {}
    for manifest in sorted((folder / "runs" / "store").glob("*/artifact.json")):
        found[manifest.parent.name] = verify(manifest.parent).files
    return found


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and some text."""
    folder = tmp_path_factory.mktemp("life")
    (folder / "text").mkdir()
    (folder / "life.yaml").write_text(RECIPE)
    for number in range(60):
        words = " ".join(f"The number {number * place} follows {number + place} in line {place}." for place in range(40))
        (folder / "text" / f"{number}.txt").write_text(words)
    return folder


@pytest.fixture(scope="module")
def whole(life: Path) -> dict:
    """The uninterrupted run."""
    return _finish(life)


def test_every_step_has_its_figures_predicted_and_measured(whole: dict) -> None:
    assert [row["step"] for row in whole["ledger"] if not row["automatic"]] == [
        "corpus", "exact", "tokenize", "pretrain", "wanda", "distil", "gptq", "sample",
    ]  # fmt: skip
    for row in whole["ledger"]:
        assert row["predicted"]["seconds"]["value"] > 0, row["step"]
        peaks = row["predicted"]["peak_memory"]["value"], row["measured"]["peak_memory"]["value"]
        assert 0.75 < peaks[0] / peaks[1] < 1.4, (row["step"], peaks)  # 1.3 to 2.4 when the process counted twice
        assert row["measured"]["seconds"]["value"] > 0, row["step"]
        assert row["measured"]["peak_memory"]["value"] > 0, row["step"]
        assert row["measured"]["energy"]["kind"] in ("estimated", "measured"), row["step"]
        assert row["measured"]["communication"]["value"] == 0, row["step"]
    sizes = {row["step"]: row["disk"]["measured"]["value"] for row in whole["ledger"]}
    assert sizes["gptq"] < sizes["pretrain"]
    qualities = {row["step"]: row["quality"] for row in whole["ledger"]}
    assert qualities["pretrain"]["difference"] is None  # nothing before it
    judged = qualities["gptq"]
    parted = judged["after"]["bits_per_byte"]["value"] - judged["before"]["bits_per_byte"]["value"]
    assert abs(judged["difference"]["bits_per_byte"]["value"] - parted) < 1e-6


def test_the_report_is_there(whole: dict, life: Path) -> None:
    assert (life / whole["report"]).read_text("utf-8").startswith("<!")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["tokenize", "pretrain", "gptq"])
def test_killed_in_a_step_the_same_command_ends_with_the_same_artifacts(
    whole: dict, life: Path, tmp_path: Path, step: str
) -> None:
    for name in ("text", "life.yaml"):
        (tmp_path / name).symlink_to(life / name)
    process = _start(tmp_path)
    scratch = tmp_path / "runs" / "store" / ".scratch"
    while process.poll() is None:
        [place] = list(scratch.glob(f"{step}-*")) or [None]
        # Training is killed once it has something to go on from, the others as soon as they begin.
        if place is not None and (step != "pretrain" or any(place.iterdir())):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"the run ended before it could be killed: {err}"
    _finish(tmp_path)
    assert _checksums(tmp_path) == _checksums(life)
    drafts = list((tmp_path / "runs" / "store").rglob(".*.draft-*"))
    assert drafts == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "steps.gptq.bist=4"], "did you mean 'bits'"),
        (["--set", "steps.corpus.source=nowhere"], "nowhere"),
        (["--set", "budget.time=1 ms"], "budget.time"),
    ],
)
def test_a_users_mistake_ends_in_one_line_and_status_2(life: Path, arguments: list[str], said: str) -> None:
    process = _start(life, *arguments)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert said in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("shoestring: ")]) == 1


def test_broken_utf8_is_named_by_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "bad.txt").write_bytes(b"good " * 100 + b"\xff\xfe")
    (tmp_path / "life.yaml").write_text(RECIPE)
    process = _start(tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "bad.txt" in err
    assert "500" in err
    assert "Traceback" not in err


def test_a_dry_run_runs_nothing(life: Path) -> None:
    process = _start(life, "--dry-run", "--json", "--out", "other/run")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [row["step"] for row in json.loads(out)["ledger"]][:3] == ["corpus", "exact", "tokenize"]
    assert not (life / "other").exists()
