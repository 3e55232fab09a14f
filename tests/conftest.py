"""What tests of several rooms need."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

Report = pytest.TestReport | pytest.CollectReport
REASONLESS = ("", "unconditional skip", "<Skipped instance>")
"""What pytest reports of a skip that gives no reason."""


def _reason(report: Report) -> str:
    where = report.longrepr
    return (where[2] if isinstance(where, tuple) else str(where)).removeprefix("Skipped").strip(": ")


def _demand_a_reason(report: Report) -> Report:
    if report.skipped and not hasattr(report, "wasxfail") and _reason(report) in REASONLESS:
        report.outcome, report.longrepr = "failed", f"{report.nodeid} is skipped without a reason: give one"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    return _demand_a_reason((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Report, Report]:
    return _demand_a_reason((yield))


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """What did not run, and why: the most frequent reason first."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.getreports("skipped"):
        reasons[_reason(report)].append(report.nodeid.split("::")[0])
    terminalreporter.section(f"skipped: {sum(map(len, reasons.values()))}")
    for reason, files in sorted(reasons.items(), key=lambda found: (-len(found[1]), found[0])):
        terminalreporter.line(f"{len(files):4}  {reason} ({', '.join(sorted(set(files)))})")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB, so that a full disk is a full disk."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system can't be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
