"""What data tests share: a place to work in, and the embedded corpus, read once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shoestring.data import Corpus
from shoestring.measure import Meter, find
from shoestring.technique import Task, Watch


def work_at(out: Path) -> tuple[Task, Watch]:
    """A task whose artifact is `out`."""
    hardware = find("cpu")
    meter = Meter(hardware)
    return Task(out, out.parent / "scratch", hardware), Watch(meter, lambda text: None)


@pytest.fixture
def work(tmp_path: Path) -> Callable[[str], tuple[Task, Watch]]:
    """A task whose artifact has the given name."""
    return lambda name: work_at(tmp_path / name)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus as an artifact."""
    return Corpus().apply({}, *work_at(tmp_path_factory.mktemp("embedded") / "corpus"))["corpus"]
