"""Runs: the store, the ledger, budgets and faults."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring import artifact
from shoestring.errors import BudgetError, FileError, ShoestringError
from shoestring.measure import find
from shoestring.recipe import Row, Silent, build, predict, read, run
from shoestring.recipe.forecast import seconds_left
from tests.recipe import toys

WHOLE: dict[str, Any] = {"steps": ["words", "learn", {"shrink": {"teacher": "learn"}}]}


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_the_ledger_has_a_row_per_step_with_quality_before_and_after(tmp_path: Path) -> None:
    done = run(build(WHOLE), tmp_path / "run")
    rows = read(tmp_path / "run" / "ledger.jsonl")
    assert [row.to_json() for row in rows] == [row.to_json() for row in done.rows]
    shrink = next(row for row in rows if row.step == "shrink")
    assert shrink.before is not None
    assert shrink.after is not None
    assert shrink.after["bits_per_byte"].value == pytest.approx(1.5 * shrink.before["bits_per_byte"].value)
    assert shrink.predicted.seconds.kind == "predicted"
    assert shrink.measured.seconds.kind == "measured"
    assert shrink.measured.energy.kind == "estimated"
    assert shrink.disk.value == toys.size(shrink.artifact)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert (tmp_path / "run" / record["states"]["shrink"]["checkpoint"] / "model.json").is_file()


def test_a_second_run_takes_everything_from_the_store_with_its_cost(tmp_path: Path) -> None:
    first = run(build(WHOLE), tmp_path / "run")
    count = len(toys.applied)
    second = run(build(WHOLE), tmp_path / "run")
    assert len(toys.applied) == count
    assert all(row.reused for row in second.rows)
    assert [row.measured for row in second.rows] == [row.measured for row in first.rows]


def test_recipes_that_begin_alike_share_their_beginning(tmp_path: Path) -> None:
    run(build(WHOLE), tmp_path / "one")
    toys.applied.clear()
    run(build(WHOLE, ["steps.shrink.factor=2.0"]), tmp_path / "two")
    assert toys.applied == ["shrink", "evaluate"]


@pytest.mark.parametrize("change", ["seed=1", "steps.words.count=4"])
def test_what_a_step_depends_on_changes_its_key(tmp_path: Path, change: str) -> None:
    run(build(WHOLE), tmp_path / "run")
    toys.applied.clear()
    run(build(WHOLE, [change]), tmp_path / "run")
    assert toys.applied == ["words", "learn", "evaluate", "shrink", "evaluate"]


def test_a_file_that_a_setting_names_is_part_of_the_key(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one")
    recipe = build({"steps": [{"words": {"source": str(text)}}]})
    first = run(recipe, tmp_path / "run")
    text.write_text("two")
    assert run(recipe, tmp_path / "run").rows[0].key != first.rows[0].key


def test_a_damaged_artifact_is_named_and_made_again(tmp_path: Path) -> None:
    first = run(build(WHOLE), tmp_path / "run")
    broken = Path(first.rows[1].artifact) / "model.json"
    good = broken.read_bytes()
    broken.write_bytes(good.replace(b"2", b"3"))
    toys.applied.clear()
    notes = Notes()
    run(build(WHOLE), tmp_path / "run", observer=notes)
    assert any(str(broken) in text and "damaged" in text for text in notes.said)
    assert toys.applied == ["learn"]
    assert broken.read_bytes() == good


def test_an_impossible_budget_says_what_is_short_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"budget\.time: 2 s is short by 3 s"):
        run(build({**WHOLE, "budget": {"time": "2 s"}}), tmp_path / "run")
    with pytest.raises(BudgetError, match=r"budget\.memory"):
        run(build({**WHOLE, "budget": {"memory": "1 kB"}}), tmp_path / "run")
    assert toys.applied == []


def test_measuring_the_machine_again_comes_out_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoestring.recipe.runner.prepare", lambda recipe, observer: (find("cpu"), 3.0))
    with pytest.raises(BudgetError, match=r"budget\.time: 7 s is short by 1 s"):
        run(build({**WHOLE, "budget": {"time": "7 s"}}), tmp_path / "out")
    assert run(build({**WHOLE, "budget": {"time": "9 s"}}), tmp_path / "out").spent == 3.0


def test_a_plan_knows_what_is_left_and_what_comes(tmp_path: Path) -> None:
    recipe = build({"steps": ["words", "decide", "learn"], "budget": {"time": "60 s"}})
    done = run(recipe, tmp_path / "run")
    decided = json.loads((Path(done.rows[1].artifact) / "plan.json").read_text())
    assert decided["rest"] == pytest.approx(2.0)
    assert 0 < 60 - decided["left"] < 5


def test_a_steps_own_complaint_names_the_step_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(ShoestringError, match=r"steps\.learn: too hard"):
        run(build(WHOLE, ["steps.learn.fail=true"]), tmp_path / "run")
    stored = [path.name for path in (tmp_path / "store").iterdir() if not path.name.startswith(".")]
    assert [name.split("-")[0] for name in stored if not name.endswith(".json")] == ["words"]
    assert len(read(tmp_path / "run" / "ledger.jsonl")) == 1


def test_a_full_disk_is_one_line_and_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(artifact, "checksum", full)
    with pytest.raises(FileError, match="no space left"):
        run(build(WHOLE), tmp_path / "run")
    assert not [path for path in (tmp_path / "store").iterdir() if path.name != ".scratch" and path.name != ".lock"]


def test_too_little_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: object, state: object, task: object, watch: object) -> None:
        torch.empty(1 << 50)

    monkeypatch.setattr(toys.Learn, "apply", greedy)
    with pytest.raises(ShoestringError, match=r"steps\.learn: out of memory"):
        run(build(WHOLE), tmp_path / "run")


def test_two_runs_dont_share_a_folder_at_one_time(tmp_path: Path) -> None:
    from shoestring.recipe import store

    with store.held(tmp_path / "run"):
        with pytest.raises(ShoestringError, match="another shoestring works here"):
            run(build(WHOLE), tmp_path / "run")


def test_a_broken_ledger_names_its_line(tmp_path: Path) -> None:
    run(build(WHOLE), tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    lines[2] = lines[2][:40]
    ledger.write_text("\n".join(lines))
    with pytest.raises(FileError, match="line 3"):
        read(ledger)


def test_rows_survive_json(tmp_path: Path) -> None:
    for row in run(build(WHOLE), tmp_path / "run").rows:
        assert Row.from_json(json.loads(json.dumps(row.to_json()))).to_json() == row.to_json()


def _content(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("theirs", ["recipe.yaml", "run.json", "ledger.jsonl", "notes/thesis.tex", "link"])
def test_a_run_writes_into_no_folder_that_holds_what_is_not_its_own(tmp_path: Path, theirs: str) -> None:
    file = tmp_path / "project" / theirs
    file.parent.mkdir(parents=True)
    file.symlink_to("nowhere") if theirs == "link" else file.write_text('{"mine": 1}')
    before = _content(tmp_path)
    with pytest.raises(FileError, match=r"not written by shoestring|no run\.json of shoestring's"):
        run(build(WHOLE), tmp_path / "project")
    assert _content(tmp_path) == before
    assert toys.applied == []


def test_a_run_may_begin_in_an_empty_folder_and_where_it_began_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    run(build(WHOLE), Path())
    run(build(WHOLE, ["seed=1"]), tmp_path / "run")
    assert (tmp_path / "store").is_dir()


def test_artifacts_are_not_kept_in_a_folder_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "index.ts").write_text("mine")
    with pytest.raises(FileError, match=r"store: artifacts are kept here, and it holds index\.ts"):
        run(build(WHOLE), tmp_path / "run")
    with pytest.raises(FileError, match="is where the artifacts are kept"):
        run(build(WHOLE), tmp_path / "other" / "store")


def test_the_budget_leaves_a_step_what_the_later_steps_do_not_need() -> None:
    recipe, hardware = build({**WHOLE, "budget": {"time": "100 s"}}), find("cpu")
    first = predict(recipe, hardware)[0]
    assert seconds_left(first, hardware) == 100 - (len(recipe.steps) - 1)  # each toy takes a second
    assert seconds_left(predict(build(WHOLE), hardware)[0], hardware) is None
