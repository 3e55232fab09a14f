"""What data tests share: a place to work in, and the embedded corpus, read once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shoestring.data import Corpus
from shoestring.measure import Meter, find
from shoestring.technique import State, Work


def work_at(out: Path) -> Work:
    """Work whose artifact is `out`."""
    hardware = find("cpu")
    meter = Meter(hardware)
    return Work(out=out, scratch=out.parent / "scratch", hardware=hardware, device="cpu", meter=meter, note=lambda text: None)


@pytest.fixture
def work(tmp_path: Path) -> Callable[[str], Work]:
    """Work whose artifact has the given name."""
    return lambda name: work_at(tmp_path / name)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus as an artifact."""
    return Corpus().apply(State(), work_at(tmp_path_factory.mktemp("embedded") / "corpus")).need("corpus", "a test")
