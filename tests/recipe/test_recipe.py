"""Recipes: what they say, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shoestring.errors import FileError, SettingError
from shoestring.recipe import build, load_recipe

WHOLE = {"steps": ["words", {"learn": {"skill": 2}}, {"shrink": {"teacher": "learn"}}]}


def test_an_evaluation_stands_behind_each_step_that_changes_the_model() -> None:
    recipe = build(WHOLE)
    assert [step.name for step in recipe.steps] == ["words", "learn", "evaluate@learn", "shrink", "evaluate@shrink"]
    assert [step.name for step in build({**WHOLE, "quality": False}).steps] == ["words", "learn", "shrink"]


def test_the_resolved_recipe_builds_the_same_recipe() -> None:
    recipe = build({**WHOLE, "budget": {"time": "5 min", "memory": "8 GB", "money": "$2"}, "seed": 3, "quality": {"windows": 9}})
    assert build(yaml.safe_load(yaml.safe_dump(recipe.to_json()))) == recipe


def test_steps_that_recur_are_counted_and_can_be_named() -> None:
    recipe = build({"steps": ["words", "learn", "shrink", "shrink", {"shrink": {}, "as": "last"}], "quality": False})
    assert [step.name for step in recipe.steps] == ["words", "learn", "shrink", "shrink-2", "last"]


def test_set_changes_settings_budget_seed_and_quality() -> None:
    recipe = build(WHOLE, ["steps.learn.skill=4", "budget.time=2 min", "seed=7", "quality.windows=5"])
    assert recipe.steps[1].technique.model_dump()["skill"] == 4
    assert recipe.budget.time == 120
    assert recipe.seed == 7
    assert recipe.steps[2].technique.model_dump()["windows"] == 5


@pytest.mark.parametrize(
    ("content", "sets", "said"),
    [
        ({"steps": ["wrods"]}, [], "did you mean 'words'"),
        ({"steps": [{"words": {"cuont": 2}}]}, [], "steps.words.cuont: no such setting; did you mean 'count'"),
        ({"steps": [{"words": {"count": 0}}]}, [], "steps.words.count: input should be greater than 0, got 0"),
        ({"steps": ["learn"]}, [], "steps.learn: needs a corpus"),
        ({"steps": ["words", "learn", {"shrink": {"teacher": "lern"}}]}, [], "did you mean 'learn'"),
        ({"stesp": []}, [], "recipe.stesp: no such setting; did you mean 'steps'"),
        ({"steps": []}, [], "recipe.steps"),
        ({"steps": [["words"]]}, [], "entry 1"),
        ({"steps": [{"words": {}, "learn": {}}]}, [], "names 2"),
        ({"steps": [{"words": 3}]}, [], "must be a mapping"),
        ({"steps": ["words"], "budget": {"tiem": "1 s"}}, [], "did you mean 'time'"),
        ({"steps": ["words"], "budget": {"time": "soon"}}, [], "budget.time"),
        ({"steps": ["words"], "device": "gpu"}, [], "device: 'gpu'"),
        ({"steps": ["words"]}, ["steps.wrods.count=1"], "did you mean 'words'"),
        ({"steps": ["words"]}, ["steps.words.count"], "write KEY=VALUE"),
        ({"steps": ["words"]}, ["bugdet.time=1"], "did you mean 'budget'"),
    ],
)
def test_mistakes_are_named_in_one_line(content: dict, sets: list[str], said: str) -> None:
    with pytest.raises(SettingError) as error:
        build(content, sets)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(SettingError) as error:
        build({"steps": [{"words": {"cuont": 2}}, {"learn": {"skil": 1}}]})
    assert "cuont" in str(error.value)
    assert "skil" in str(error.value)


def test_a_step_that_others_need_cant_be_left_out() -> None:
    with pytest.raises(SettingError, match=r"steps\.shrink\.teacher"):
        build(WHOLE).without(["learn"])
    assert [step.name for step in build(WHOLE).without(["shrink"]).steps] == ["words", "learn", "evaluate@learn"]


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load_recipe(tmp_path / "none.yaml")
    file = tmp_path / "bad.yaml"
    file.write_bytes(b"steps: \xff\xfe")
    with pytest.raises(FileError, match=r"not UTF-8 at byte 7"):
        load_recipe(file)
    file.write_text("steps: [words\n")
    with pytest.raises(FileError, match="not YAML at line"):
        load_recipe(file)
    file.write_text("- words\n")
    with pytest.raises(FileError, match="mapping"):
        load_recipe(file)
    file.write_text("steps: [words]\n")
    assert load_recipe(file).name == "bad"
