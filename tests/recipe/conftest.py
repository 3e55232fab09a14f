"""The recipe room is tested with toy techniques in place of the rooms' own."""

from __future__ import annotations

import pytest

from shoestring.measure import find
from shoestring.recipe import recipe as module
from shoestring.recipe import rooms
from tests.recipe import toys


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(rooms, "techniques", lambda: toys.TOYS)
    monkeypatch.setattr(module, "Evaluate", toys.Judge)
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setattr("shoestring.recipe.runner.prepare", lambda recipe, observer: (find("cpu"), 0.0))
    toys.applied.clear()
