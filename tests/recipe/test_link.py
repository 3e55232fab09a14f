"""The link to a run's newest model, and the limits that a run passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring.errors import FileError
from shoestring.measure import find, predicted_usage
from shoestring.model.fetch import locate
from shoestring.recipe import broken, build, limits, run
from shoestring.recipe.link import link_model
from shoestring.technique import Budget

WHOLE = {"steps": ["words", "learn", {"shrink": {"teacher": "learn"}}]}


def test_the_link_leads_to_the_newest_checkpoint_wherever_the_folders_go(tmp_path: Path) -> None:
    done = run(build(WHOLE), tmp_path / "runs" / "one")
    (tmp_path / "runs").rename(tmp_path / "moved")
    link = tmp_path / "moved" / "one" / "model"
    assert link.resolve() == (tmp_path / "moved" / "store" / done.state["checkpoint"].name)
    assert locate(link.parent) == link.resolve()


def test_another_recipe_moves_the_link_and_leaves_nothing_else(tmp_path: Path) -> None:
    for sets in ([], ["steps.learn.skill=2"]):
        done = run(build(WHOLE, sets), tmp_path / "run")
        assert (tmp_path / "run" / "model").resolve() == Path(done.rows[-2].artifact)
    assert not list((tmp_path / "run").glob(".model*"))


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_not_ours_keeps_the_name(tmp_path: Path, kind: str) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    for place in (store / "gptq-1", run, tmp_path / "mine"):
        place.mkdir(parents=True)
    taken = run / "model"
    {"file": taken.touch, "folder": taken.mkdir, "link": lambda: taken.symlink_to(tmp_path / "mine")}[kind]()
    before = (taken.is_symlink(), taken.resolve())
    assert "stays as it is" in link_model(run, store / "gptq-1")
    assert (taken.is_symlink(), taken.resolve()) == before


def test_a_run_without_a_model_says_so(tmp_path: Path) -> None:
    run(build({"steps": ["words"]}), tmp_path / "run")
    with pytest.raises(FileError, match="made no model yet"):
        locate(tmp_path / "run")


def test_limits_that_were_passed_are_named() -> None:
    used = predicted_usage(seconds=90.0, hardware=find("cpu"), peak_memory=2e9, flops=1.0)
    assert broken(Budget(time=100.0, memory=3e9), used) == []
    [line] = broken(Budget(time=60.0), used)
    assert line.startswith("budget.time: 1 min 00 s was passed by 50.0%")
    assert len(broken(Budget(time=60.0, memory=1e9), used)) == 2
    assert limits(Budget(time=480.0, money=2.0)) == "time 8 min 00 s, money $2.00"
    assert limits(Budget()) == ""
