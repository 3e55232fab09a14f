"""Pretrain: what follows from what, and from tokens to a checkpoint."""

import json

import numpy as np
import pytest

from shoestring import artifact
from shoestring.architecture import ModelConfig, counts
from shoestring.errors import SettingError
from shoestring.measure import Meter, find
from shoestring.technique import Sketch, Task, Watch, configure
from shoestring.tokenizer import Tokenizer
from shoestring.train import Pretrain, TrainingPlan
from shoestring.train.pretrain import read_plan

SHAPE = {"width": 32, "layers": 2, "heads": 4, "context": 16}


def _plan(**changes):
    base = {
        "model": ModelConfig(vocabulary=300, **SHAPE),
        "steps": 100,
        "batch": 8,
        "micro_batch": 4,
        "context": 16,
        "learning_rate": 1e-2,
        "warmup": 10,
        "decay": 20,
        "precision": "fp32",
        "tokens": 12_800,
        "seconds": 3.0,
    }
    return TrainingPlan(**{**base, **changes})


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A tokens artifact of counted words."""
    place = tmp_path_factory.mktemp("pretrain") / "tokens"
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)}, r"\s?\S+", ["<|endoftext|>"])
    documents = [f"document {n} counts {n} and {n + 1} and {n + 2}. " * 6 for n in range(60)]
    encoded = [tokenizer.encode(text) + [tokenizer.end] for text in documents]
    about = {"dtype": "uint16", "vocabulary": tokenizer.vocabulary}
    with artifact.writing(place, "tokens", about) as folder:
        tokenizer.save(folder)
        for side, part in (("train", encoded[:50]), ("heldout", encoded[50:])):
            np.concatenate([np.array(row, dtype="<u2") for row in part]).tofile(folder / f"{side}.bin")
            np.save(folder / f"{side}.offsets.npy", np.cumsum([0, *map(len, part)]).astype("<i8"))
    return place


def _work(place, **more):
    notes, said = [], []
    hardware = find("cpu")
    scratch = place / "scratch"
    task = Task(place / "out", scratch, hardware, seed=3, **more)
    return task, Watch(Meter(hardware), notes.append, lambda text, done=None: said.append(text)), notes, said


def _apply(technique, state, place, **more):
    task, watch, notes, said = _work(place, **more)
    with watch.meter:
        after = technique.apply(state, task, watch)
    return after, watch, notes, said


def test_from_tokens_to_a_checkpoint(tokens, tmp_path):
    technique = Pretrain(model=SHAPE, tokens=6_000, batch_tokens=128, micro_batch=4, learning_rate=1e-2, log_every=5)
    state = {"tokens": tokens}
    after, watch, notes, said = _apply(technique, state, tmp_path / "first")
    found = artifact.verify(after["checkpoint"])
    assert found.kind == "checkpoint"
    assert found.about["facts"]["trained_tokens"] == 46 * 128
    log = [json.loads(line) for line in (after["checkpoint"] / "training.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 46
    assert log[-1]["loss"] < 4.5 < log[0]["loss"]
    assert watch.meter.flops == pytest.approx(counts.training_flops(ModelConfig(vocabulary=257, **SHAPE), 46 * 128))
    assert "parameters on cpu: 46 steps of 8 x 16 tokens" in notes[0]
    assert "step 46/46" in said[-1]

    from shoestring.model import load

    model, tokenizer = load(after["checkpoint"])
    assert model.config.width == 32
    assert tokenizer.vocabulary == 257
    again, *_ = _apply(technique, state, tmp_path / "second")
    assert found.files == artifact.manifest(again["checkpoint"]).files


def test_a_plan_is_followed_and_settings_win_over_it(tokens, tmp_path):
    place = tmp_path / "plan"
    with artifact.writing(place, "plan") as folder:
        (folder / "plan.json").write_text(_plan(steps=12, warmup=2, decay=4, tokens=12 * 128).model_dump_json())
    assert read_plan(place).steps == 12
    after, _, _, said = _apply(Pretrain(), {"tokens": tokens, "plan": place}, tmp_path / "auto")
    assert "step 12/12" in said[-1]
    assert artifact.manifest(after["checkpoint"]).about["plan"]["batch"] == 8
    plan = Pretrain(steps=50, learning_rate=0.5, batch_tokens=80).resolve(1e6, 300, _plan(), "cpu")
    assert (plan.steps, plan.learning_rate, plan.batch, plan.micro_batch) == (50, 0.5, 5, 1)
    assert (plan.warmup, plan.decay, plan.tokens) == (5, 10, 50 * 80)


def test_without_a_plan():
    plan = Pretrain(model=SHAPE).resolve(1_000_000, 300, None, "cpu")
    assert plan.batch == plan.micro_batch == 2048
    assert plan.steps == 30
    assert plan.learning_rate == pytest.approx(0.003239 - 0.0001395 * np.log(counts.parameters(plan.model)))
    assert (plan.warmup, plan.decay, plan.precision) == (2, 6, "fp32")
    assert Pretrain(model=SHAPE).resolve(1_000_000, 300, None, "cuda").precision == "bf16"


def test_predict_follows_the_sketch():
    hardware = find("cpu")
    known = Sketch(tokens=1e6, vocabulary=300, plan=_plan(), bits_per_byte=1.5)
    prediction = Pretrain().predict(known, hardware)
    assert prediction.sketch.trained_tokens == 12_800
    assert prediction.sketch.model == _plan().model
    assert prediction.sketch.bits_per_byte == 1.5
    assert prediction.sketch.disk_bytes == 4 * counts.parameters(_plan().model)
    assert prediction.usage.flops.value == pytest.approx(counts.training_flops(_plan().model, 12_800))
    longer = Pretrain(steps=200).predict(known, hardware)
    assert longer.usage.seconds.value == pytest.approx(2 * prediction.usage.seconds.value, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": {"widht": 3}}, "pretrain.model.*did you mean 'width'"),
        ({"model": {**SHAPE, "heads": 3, "kv_heads": 2}}, "kv_heads must divide heads"),
        ({"model": "big"}, "pretrain.model"),
        ({"optimizer": "sgd"}, "pretrain.optimizer.*adamw"),
        ({"learning_rate": 0}, "pretrain.learning_rate.*greater than 0"),
        ({"stepps": 3}, "did you mean 'steps'"),
        ({"packing": "tight"}, "no packing called .tight.*bestfit"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(SettingError, match=said):
        configure(Pretrain, settings, "pretrain")


def test_what_is_missing_is_said(tokens, tmp_path):
    with pytest.raises(SettingError, match=r"pretrain.model: auto needs a plan; put a plan step before it"):
        Pretrain().predict(Sketch(tokens=10, vocabulary=300), find("cpu"))
    with pytest.raises(SettingError, match="vocabulary: must be given"):
        Pretrain(model=SHAPE).predict(Sketch(), find("cpu"))
    with pytest.raises(SettingError, match="tokens: must be given"):
        Pretrain(model=SHAPE).predict(Sketch(vocabulary=300), find("cpu"))
    with pytest.raises(SettingError, match="100 is less than the tokens' 257"):
        _apply(Pretrain(model={**SHAPE, "vocabulary": 100}), {"tokens": tokens}, tmp_path)
    with pytest.raises(SettingError, match="must hold one sequence of 16 tokens, got 3"):
        Pretrain(model=SHAPE, batch_tokens=3).resolve(1e5, 300, None, "cpu")
    with pytest.raises(SettingError, match="more than its 10 steps"):
        Pretrain(model=SHAPE, steps=10, warmup=8, decay=8).resolve(1e5, 300, None, "cpu")
