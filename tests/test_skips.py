"""A test run ends with what was skipped and why; a skip without a reason is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REASONED = """
import pytest

@pytest.mark.skipif(True, reason="no moon")
def test_a(): ...

@pytest.mark.parametrize("n", range(2))
def test_b(n): pytest.skip("no sun")

@pytest.mark.xfail
def test_c(): assert False
"""
REASONLESS = """
import pytest

@pytest.mark.skip
def test_a(): ...

def test_b(): pytest.skip()
"""


def _run(folder: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "pytest.ini").write_text("[pytest]")
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-rN", "-p", "xdist", *arguments]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_ends_with_what_was_skipped_and_why(tmp_path: Path, workers: str) -> None:
    done = _run(tmp_path, REASONED, "-n", workers)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " skipped: 3 =" in done.stdout
    assert "   2  no sun (test_it.py)\n   1  no moon (test_it.py)\n" in done.stdout


@pytest.mark.parametrize(("source", "failures"), [(REASONLESS, 2), ("import pytest\npytest.skip(allow_module_level=True)", 1)])
def test_a_skip_without_a_reason_fails(tmp_path: Path, source: str, failures: int) -> None:
    done = _run(tmp_path, source)
    assert done.returncode != 0, done.stdout
    assert done.stdout.count("is skipped without a reason: give one\n") == failures
    assert " skipped: 0 =" in done.stdout
