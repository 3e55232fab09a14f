"""The store: what a key depends on, and what is taken for an artifact."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoestring import artifact, measure
from shoestring.errors import SettingError
from shoestring.measure import find
from shoestring.recipe import Silent, build, run, runner, spent, store
from shoestring.technique import State, Task, Watch
from tests.recipe import toys

WHOLE: dict[str, Any] = {"steps": ["words", "learn", {"shrink": {"teacher": "learn"}}]}


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def _again(folder: Path) -> tuple[list[str], list[str]]:
    """Run once more: which steps were done, and what was said."""
    toys.applied.clear()
    notes = Notes()
    run(build(WHOLE), folder / "run", observer=notes)
    return list(toys.applied), notes.said


def test_an_artifact_under_anothers_name_is_rebuilt(tmp_path: Path) -> None:
    done = run(build(WHOLE), tmp_path / "run")
    places = list(dict.fromkeys(Path(row.artifact) for row in done.rows))
    good = {place: place.joinpath("artifact.json").read_bytes() for place in places}
    for one, other in itertools.combinations(places, 2):
        aside = one.with_name("aside")
        one.rename(aside)
        other.rename(one)
        aside.rename(other)
        applied, said = _again(tmp_path)
        assert len(applied) == 2, (one.name, other.name, applied)
        assert sum("under another name" in text for text in said) == 2
        assert {place: place.joinpath("artifact.json").read_bytes() for place in places} == good


@pytest.mark.parametrize("kind", ["file", "link to a file", "link to a folder", "link to nothing", "folder", "more", "fewer"])
def test_what_stands_in_the_place_of_an_artifact_is_set_aside(tmp_path: Path, kind: str) -> None:
    place = Path(run(build(WHOLE), tmp_path / "run").rows[1].artifact)
    mine = tmp_path / "mine"
    shutil.copytree(place, mine)
    if kind == "more":
        (place / "notes.txt").write_text("mine")
    elif kind == "fewer":
        (place / "model.json").unlink()
    else:
        shutil.rmtree(place)
        targets = {"link to a file": mine / "model.json", "link to a folder": mine, "link to nothing": tmp_path / "nothing"}
        if kind in targets:
            place.symlink_to(targets[kind])
        elif kind == "file":
            place.write_text("mine")
        else:
            place.mkdir()
            (place / "notes.txt").write_text("mine")
    applied, said = _again(tmp_path)
    assert applied == ["learn"]
    assert len(said) == 1
    aside = place.with_name(f"{place.name}.aside-1")
    if kind == "fewer":
        assert not aside.exists()
    else:
        assert f"what was there is now {aside}" in said[0]
        assert aside.is_symlink() == kind.startswith("link")
    if kind in ("more", "folder"):
        assert (aside / "notes.txt").read_text() == "mine"
    assert (mine / "model.json").read_bytes() == (place / "model.json").read_bytes()
    assert _again(tmp_path) == ([], [])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"predicted": 1}', "[" * 5000, "\0", '{"measured": {"seconds": {"value": "long"}}}']
)
def test_a_broken_record_is_a_note_and_an_unknown_cost(tmp_path: Path, content: str) -> None:
    done = run(build(WHOLE), tmp_path / "run")
    record = Path(done.rows[1].artifact + ".json")
    whole = json.loads(record.read_text())
    record.write_text(content)
    notes = Notes()
    again = run(build(WHOLE), tmp_path / "run", observer=notes)
    assert notes.said == [f"{record}: can't be read; what this step cost is unknown"]
    assert again.rows[1].measured.seconds.value is None
    assert again.rows[1].reused
    whole["measured"]["seconds"]["value"] = "long"
    record.write_text(json.dumps(whole))
    assert run(build(WHOLE), tmp_path / "run").rows[1].measured.seconds.value is None


def test_what_is_made_from_other_bits_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged model that is rebuilt with other bits has another successor than the one that is stored."""
    done = run(build(WHOLE), tmp_path / "run")
    shutil.rmtree(done.rows[1].artifact)
    monkeypatch.setattr(toys.Learn, "apply", lambda self, state, task, watch: self.make(task, "model.json", {"quality": 0.5}))
    toys.applied.clear()
    again = run(build(WHOLE), tmp_path / "run")
    assert toys.applied == ["learn", "evaluate", "shrink", "evaluate"]
    assert again.rows[1].key == done.rows[1].key
    assert again.rows[3].key != done.rows[3].key


def test_a_training_cut_short_is_reused_for_the_same_budget_only(tmp_path: Path) -> None:
    def made(time: str | None) -> tuple[list[str], str]:
        toys.applied.clear()
        recipe = build(
            {"steps": ["words", {"learn": {"hours": 1}}], "quality": False, **({"budget": {"time": time}} if time else {})}
        )
        done = run(recipe, tmp_path / "run")
        return list(toys.applied), done.rows[1].key

    short = made("10 min")
    assert short[0] == ["words", "learn"]
    assert made("10 min") == ([], short[1])
    whole = made("5 h")
    assert whole == (["learn"], whole[1])
    assert whole[1] != short[1]
    assert made("10 min") == ([], short[1])
    assert made("5 h") == ([], whole[1])
    Path(tmp_path / "store" / f"{short[1]}.json").unlink()
    assert made("10 min")[0] == ["learn"]


def test_a_training_that_was_not_cut_is_reused_for_any_budget(tmp_path: Path) -> None:
    content = {"steps": ["words", {"learn": {"hours": 0.01}}], "quality": False}
    first = run(build(content), tmp_path / "run").rows[1].key
    toys.applied.clear()
    assert run(build({**content, "budget": {"time": "1 h"}}), tmp_path / "run").rows[1].key == first
    assert toys.applied == []


def test_where_a_model_runs_the_device_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(build(WHOLE), tmp_path / "run")
    other = replace(find("cpu"), device="cuda")
    monkeypatch.setattr(runner, "prepare", lambda recipe, observer: (other, 0.0))
    monkeypatch.setattr(runner, "Meter", lambda hardware: measure.Meter(find("cpu")))
    toys.applied.clear()
    run(build(WHOLE), tmp_path / "run")
    assert toys.applied == ["learn", "evaluate", "shrink", "evaluate"]


def test_what_follows_from_the_machine_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(build(WHOLE), tmp_path / "run")
    monkeypatch.setattr(toys.Shrink, "resolved", lambda self, device: {"precision": "bf16"})
    assert _again(tmp_path)[0] == ["shrink", "evaluate"]


def test_a_reference_is_what_the_named_step_made(tmp_path: Path) -> None:
    recipe = build({"steps": ["words", "learn", "shrink", {"shrink": {"teacher": "shrink"}, "as": "second"}], "quality": False})
    done = run(recipe, tmp_path / "run")
    last, hardware = recipe.steps[3], find("cpu")
    before = store.key(last, recipe, done.states["shrink"], done.states, hardware)
    states = {**done.states, "shrink": {"checkpoint": done.states["learn"]["checkpoint"]}}
    assert store.key(last, recipe, done.states["shrink"], states, hardware) != before
    with pytest.raises(SettingError, match=r"steps\.shrink\.teacher: 'words' makes no checkpoint; .*allowed: learn"):
        build({"steps": ["words", "learn", {"shrink": {"teacher": "words"}}]})


@pytest.mark.parametrize(("point", "counts"), [("restart point", True), (None, False)])
def test_what_was_used_before_a_stop_counts_when_the_step_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str | None, counts: bool
) -> None:
    apply = toys.Learn.apply

    def stopped(self: toys.Learn, state: State, task: Task, watch: Watch) -> State:
        watch.meter.count(flops=1e12)
        if point is not None:
            (task.scratch / point).write_text("half the way")
        raise KeyboardInterrupt

    def goes_on(self: toys.Learn, state: State, task: Task, watch: Watch) -> State:
        watch.meter.count(flops=1e9)
        return apply(self, state, task, watch)

    monkeypatch.setattr(toys.Learn, "apply", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(build(WHOLE), tmp_path / "run")
    monkeypatch.setattr(toys.Learn, "apply", goes_on)
    row = run(build(WHOLE), tmp_path / "run").rows[1]
    assert row.measured.flops.value == (1e12 + 1e9 if counts else 1e9)
    assert ("with that of before it was stopped" in row.measured.seconds.method) == counts
    assert not list((tmp_path / "store" / ".scratch").iterdir())


def test_what_was_used_is_kept_while_a_step_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spent, "EVERY", 0.0)
    kept: list[float] = []

    def apply(self: toys.Learn, state: State, task: Task, watch: Watch) -> State:
        for _ in range(2):
            watch.meter.count(flops=1e9)
            watch.progress("learning", 0.5)
            kept.append(json.loads((task.scratch / spent.FILE).read_text())["flops"]["value"])
        self.make(task, "model.json", {"quality": 1.0})
        return {**state, "checkpoint": task.out}

    monkeypatch.setattr(toys.Learn, "apply", apply)
    run(build(WHOLE), tmp_path / "run")
    assert kept == [1e9, 2e9]


def test_a_room_whose_shared_code_changed_makes_its_results_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(build(WHOLE), tmp_path / "run")
    monkeypatch.setattr("shoestring.compress.VERSION", 2)
    applied, _ = _again(tmp_path)
    assert applied == ["shrink", "evaluate"]


def test_checksums_are_made_again_only_of_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [Path(row.artifact) for row in run(build(WHOLE), tmp_path / "run").rows]
    summed: list[Path] = []
    checksum = artifact.checksum

    def counted(file: Path) -> str:
        summed.append(file)
        return checksum(file)

    monkeypatch.setattr(artifact, "checksum", counted)
    _again(tmp_path)
    assert not summed
    file = next(path for path in places[0].iterdir() if path.name != artifact.MANIFEST)
    for _ in range(2):  # as a copy without times would be
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
        _again(tmp_path)
        _again(tmp_path)
    assert summed == [file, file]


def test_what_was_used_counts_over_two_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, lives = toys.Learn.apply, iter((1e12, 1e10, 1e9))

    def killed_twice(self: toys.Learn, state: State, task: Task, watch: Watch) -> State:
        watch.meter.count(flops=(flops := next(lives)))
        (task.scratch / "point").write_text(str(flops))
        if flops > 1e9:
            raise KeyboardInterrupt
        return apply(self, state, task, watch)

    monkeypatch.setattr(toys.Learn, "apply", killed_twice)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(build(WHOLE), tmp_path / "run")
    assert run(build(WHOLE), tmp_path / "run").rows[1].measured.flops.value == 1e12 + 1e10 + 1e9
