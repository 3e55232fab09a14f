"""A step in several processes: its task is plain data, and what the ranks count comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoestring.architecture import ModelConfig
from shoestring.data import Corpus, Tokenize
from shoestring.measure import Meter, find
from shoestring.recipe import rank, rooms
from shoestring.recipe.rooms import techniques
from shoestring.technique import Budget, Outlook, Sketch, State, Task, Watch
from shoestring.train import Pretrain

EVERY = techniques()
CPU = find("cpu")
SHAPE = {"width": 32, "layers": 1, "heads": 2, "context": 16}


@pytest.fixture(autouse=True)
def _real_techniques(_toys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "techniques", lambda: EVERY)


def test_a_task_is_plain_data(tmp_path: Path) -> None:
    model = ModelConfig(vocabulary=300, **SHAPE)
    plan = Pretrain(model=SHAPE, steps=3).resolve(1000, 300, None, "cpu")
    outlook = Outlook(Budget(time=9.0), (Pretrain(steps=2), Tokenize(vocabulary=300)))
    sketch = Sketch(tokens=7.0, model=model, plan=plan, outlook=outlook)
    task = Task(tmp_path / "out", tmp_path / "scratch", CPU, 3, sketch, {"first": {"tokens": tmp_path / "t"}}, 4.0, 2)
    technique, state = Pretrain(model=SHAPE, steps=3), {"tokens": tmp_path / "t"}
    record = json.loads(json.dumps(rank.written(technique, state, task)))
    assert rank.read(record) == (technique, state, task)


def test_two_ranks_train_as_one_does(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the cat sat on the mat. " * 100)
    state: State = {}
    losses, flops = [], []
    for technique in (Corpus(source=str(tmp_path / "in.txt")), Tokenize(vocabulary=260, heldout=0)):
        made = Task(tmp_path / technique.gives, tmp_path / "made", CPU)
        state = technique.apply(state, made, Watch(Meter(CPU), lambda text: None))
    step = Pretrain(model=SHAPE, steps=3, batch_tokens=64, micro_batch=2, learning_rate=1e-2, log_every=1)
    for ranks in (1, 2):
        notes: list[str] = []
        task = Task(tmp_path / f"out-{ranks}", tmp_path / f"scratch-{ranks}", CPU, seed=3, ranks=ranks)
        task.scratch.mkdir()
        with Meter(CPU) as meter:
            rank.apply(step, state, task, Watch(meter, notes.append))
        log = [json.loads(line) for line in (task.out / "training.jsonl").read_text().splitlines()]
        losses.append([entry["loss"] for entry in log])
        flops.append(meter.flops)
        assert any("pretraining" in note for note in notes)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert flops[1] == pytest.approx(flops[0])
    assert meter.usage.peak_memory.method == "the fullest of several processes"
