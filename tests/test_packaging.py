"""What an install brings: recipes by name, and pins that hold what the code needs and nothing of development."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from shoestring.errors import FileError
from shoestring.recipe import load_recipe
from shoestring.recipe.shipped import find_recipe, shipped

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return {_plain(line.split("==")[0]): line for line in lines if not line.startswith("#")}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~! ]", name)[0]).lower()


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "recipes/quickstart.yaml"])
def test_a_recipe_that_comes_along_is_found_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # a folder of that name is no recipe
    assert load_recipe(name).name == "quickstart"
    assert {"quickstart", "shrink", "gpt2"} <= shipped().keys()


def test_a_file_of_the_users_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("steps: [corpus]")
    assert find_recipe("quickstart") == Path("quickstart")
    assert [step.name for step in load_recipe("quickstart").steps] == ["corpus"]


@pytest.mark.parametrize("name", ["quickstrat", "mine/quickstart.yaml", "../quickstart", ""])
def test_an_unknown_recipe_lists_what_comes_along(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match="quickstart, shrink"):
        find_recipe(name)


def test_the_wheel_holds_the_recipes() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"] == {"recipes": "shoestring/recipes"}
    assert "/recipes" in build["sdist"]["include"]


def test_the_pins_for_running_are_those_of_development_and_no_more() -> None:
    running, development = _pins("requirements.lock"), _pins("requirements-dev.lock")
    assert running.items() <= development.items()
    assert len(running) < len(development)
    extras = PROJECT["optional-dependencies"]
    assert {_plain(one) for one in [*PROJECT["dependencies"], *extras["build"]]} <= running.keys()
    assert not {"pytest", "ruff", "mypy", "transformers", "datasets", "playwright", "ray", "optuna"} & running.keys()
    for extra in ("dev", "test", "hf", "cluster"):
        assert {_plain(one) for one in extras[extra] if not one.startswith("shoestring[")} <= development.keys(), extra
