"""What plans and costs is known without torch: it takes seconds to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROOMS = ("data", "train", "infer", "evaluate", "tune", "compress")


def loaded(code: str) -> set[str]:
    """Top-level modules that are there after some code has run in a fresh interpreter."""
    tail = "\nimport sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    ran = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["architecture", "technique", "measure", "plan", *(f"{room}.cost" for room in ROOMS)])
def test_importing_it_imports_no_torch(module: str) -> None:
    assert "torch" not in loaded(f"import shoestring.{module}")


def test_a_plan_is_made_without_torch() -> None:
    command = "['plan', '--time', '1h', '--device', 'h200']"
    assert "torch" not in loaded(f"import sys; sys.argv[1:] = {command}\nfrom shoestring.cli import main\nmain()")


@pytest.mark.parametrize("room", ["train", "infer", "evaluate", "tune", "compress", "recipe"])
def test_names_that_are_looked_up_late_are_all_there(room: str) -> None:
    package = __import__(f"shoestring.{room}", fromlist=["__all__"])
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=rf"shoestring\.{room}.*no attribute 'nothing'"):
        package.nothing
