"""Two runs on one store at the same time: what both need is made once, and a kill of one is no loss to the other."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from shoestring.recipe import Silent, build, read, run
from shoestring.technique import State, Task, Watch
from tests.recipe import toys

WHOLE: dict[str, Any] = {"steps": ["words", "learn", "shrink"]}


class Written(Silent):
    """Writes the notes into a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def note(self, text: str) -> None:
        with self.file.open("a") as stream:
            stream.write(text + "\n")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], BaseProcess]]:
    """Starts a run of that name; its second step leaves a restart point and waits for the file `go`, or goes on from one."""
    apply, fork, started = toys.Learn.apply, multiprocessing.get_context("fork"), []

    def waits(self: toys.Learn, state: State, task: Task, watch: Watch) -> State:
        point = task.scratch / "point"
        if not point.exists():
            point.write_text("half the way")
            _until((tmp_path / "go").exists)
        with (tmp_path / "made").open("a") as stream:
            stream.write("learn\n")
        return apply(self, state, task, watch)

    def begin(name: str) -> BaseProcess:
        process = fork.Process(target=run, args=(build(WHOLE), tmp_path / name, None, Written(tmp_path / f"{name}.notes")))
        process.start()
        started.append(process)
        return process

    monkeypatch.setattr(toys.Learn, "apply", waits)
    yield begin
    for process in started:
        process.kill()
        process.join()


def _until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def _both_at_one_step(tmp_path: Path, start: Callable[[str], BaseProcess]) -> tuple[BaseProcess, BaseProcess]:
    one = start("one")
    _until(lambda: bool(list((tmp_path / "store" / ".scratch").glob("learn-*/point"))))
    two, notes = start("two"), tmp_path / "two.notes"
    _until(lambda: notes.exists() and "another shoestring makes this now" in notes.read_text())
    return one, two


def test_both_finish_and_what_both_need_is_made_once(tmp_path: Path, start: Callable[[str], BaseProcess]) -> None:
    both = _both_at_one_step(tmp_path, start)
    (tmp_path / "go").touch()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "made").read_text() == "learn\n"
    one, two = (read(tmp_path / name / "ledger.jsonl") for name in ("one", "two"))
    assert [row.key for row in one] == [row.key for row in two]
    assert [row.reused for row in two[:2]] == [True, True]
    assert not list((tmp_path / "store" / ".scratch").iterdir())


def test_the_other_goes_on_where_a_killed_one_was(tmp_path: Path, start: Callable[[str], BaseProcess]) -> None:
    one, two = _both_at_one_step(tmp_path, start)
    one.kill()
    two.join(60)  # `go` is never there: it can only have gone on from the restart point
    assert two.exitcode == 0
    resumed = read(tmp_path / "two" / "ledger.jsonl")[1]
    assert not resumed.reused
    assert "since the restart" in resumed.measured.seconds.method
    again = run(build(WHOLE), tmp_path / "one")
    assert all(row.reused for row in again.rows)
    assert (tmp_path / "made").read_text() == "learn\n"
