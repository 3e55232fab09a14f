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
        ({"steps": ["words"], "device": "gpu"}, [], "recipe.device: input should be 'auto', 'cpu' or 'cuda', got 'gpu'"),
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
    content = {
        "steps": ["wrods", {"words": {"cuont": 2}}, {"learn": {"skil": 1}}, [1], "shrink", {"words": {}, "as": "shrink"}],
        "budget": {"time": "soon", "mony": "$1"},
        "quality": {"windos": 3},
        "device": "gpu",
        "seed": -1,
        "stesp": 1,
    }
    with pytest.raises(SettingError) as error:
        build(content, ["nonsense=1", "words"])
    for word in ("wrods", "cuont", "skil", "entry 4", "two steps", "budget.time", "mony", "windos", "'gpu'", "-1", "stesp"):
        assert word in str(error.value), word
    assert "--set nonsense: no such key" in str(error.value)
    assert "--set words: write KEY=VALUE" in str(error.value)


def test_a_message_stays_short_whatever_a_user_writes() -> None:
    long = "x" * 10_000
    steps = [
        {"words": {long: long}},
        {long: {}},
        {"learn": {"skill": long}},
        {"shrink": {"teacher": long}},
        {"learn": {}, "as": long},
    ]
    with pytest.raises(SettingError) as error:
        build({"steps": steps, "seed": long, long: 1}, [f"{long}={long}", f"steps.words.{long}=1", f"steps.{long}x.y=1", long])
    assert long[:400] not in str(error.value)
    assert len(str(error.value)) < 9_000
    with pytest.raises(SettingError, match="and 80 more"):
        build({"steps": [f"no-{number}" for number in range(100)]})


@pytest.mark.parametrize("number", [2**63, -(10**30), float("inf"), float("nan"), str(2**70), int("9" * 4000)])
@pytest.mark.parametrize("place", ["words.count", "learn.skill", "shrink.factor"])
def test_numbers_have_bounds(number: float, place: str) -> None:
    step, setting = place.split(".")
    content = {**WHOLE, "steps": ["words", "learn", "shrink", {step: {setting: number}, "as": "last"}]}
    if isinstance(number, str) and setting != "count":
        assert build(content)
        return
    with pytest.raises(SettingError, match=rf"steps\.last\.{setting}: .*(finite|larger)"):
        build(content)


def test_values_are_read_as_people_write_them() -> None:
    sets = ["steps.words.source=2:4", "steps.learn.skill=1e-4", "steps.learn.fail=on", "steps.shrink.factor=1_000", "quality=off"]
    words, learn, shrink = build(WHOLE, sets).steps
    assert words.technique.model_dump()["source"] == "2:4"
    assert learn.technique.model_dump() == {"skill": 1e-4, "fail": True, "hours": 0.0}
    assert shrink.technique.model_dump()["factor"] == 1000.0


def test_a_step_that_others_need_cant_be_left_out() -> None:
    with pytest.raises(SettingError, match=r"steps\.shrink\.teacher"):
        build(WHOLE).without(["learn"])
    assert [step.name for step in build(WHOLE).without(["shrink"]).steps] == ["words", "learn", "evaluate@learn"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: 2024-02-30\nsteps: [learn]", "steps.learn: needs a corpus"),  # no date of ours
        ("seed: 0x_\nsteps: [words]", "recipe.seed"),
        ("seed: " + "1" * 5000 + "\nsteps: [words]", "5,000 digits"),
        ("steps: " + "[" * 3000 + "]" * 3000, "nested too deep"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{key}: &{key} [{', '.join([f'*{last}'] * 10)}]\n" for last, key in zip("abcdefgh", "bcdefghi")
        ) + "steps: [words]", "aliases"),
        ("steps: &s [words, *s]", "aliases"),
        ("seed: .inf\nsteps: [words]", "seed"),
        ("seed: 1\nseed: 2\nsteps: [words]", "twice"),
        ("", "a recipe is a mapping"),
    ],
)  # fmt: skip
def test_hostile_files_end_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises((FileError, SettingError)) as error:
        load_recipe(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


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


@pytest.mark.parametrize(
    "name", ["", "..", ".", "/etc/x", "../x", "a/b", "a\\b", "a\nb", "a\0b", "store", "x" * 200, "~", "$HOME"]
)
def test_a_recipes_name_is_a_name(name: str) -> None:
    with pytest.raises(SettingError, match=r"recipe\.name: must be a name of at most 80 letters"):
        build({**WHOLE, "name": name})


@pytest.mark.parametrize("name", ["gptq 4-bit", "über_1.5", "v2"])
def test_names_as_people_give_them(name: str) -> None:
    assert build({**WHOLE, "name": name}).name == name


@pytest.mark.parametrize(
    ("file", "name"),
    [("my run (2).yaml", "my run -2"), ("a+b.yaml", "a-b"), ("...yaml", "recipe"), ("é" * 85 + ".yml", "é" * 80)],
)
def test_a_recipe_without_a_name_takes_what_is_a_name_of_its_files(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).write_text("steps: [words]\n")
    assert load_recipe(tmp_path / file).name == name
