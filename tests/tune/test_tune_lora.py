"""The technique: it learns, merges, keeps zeros, goes on after a kill, and refuses what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from shoestring import artifact
from shoestring.data.batch import IGNORED
from shoestring.errors import SettingError
from shoestring.evaluate import bits_per_byte
from shoestring.model import Transformer, load, save
from shoestring.technique import Sketch, State, Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.tune import LoRA, load_adapter, merge

TEXT = "the cat sat on the mat. " * 20


def test_learns_and_merges(state: State, work: Callable[..., tuple[Task, Watch]], batch_BT: torch.Tensor) -> None:
    task, watch = work()
    step = LoRA(rank=4, steps=40, batch=4, context=32, learning_rate=2e-2)
    after = step.apply(state, task, watch)
    before_model, tokenizer = load(state["checkpoint"])
    model, _ = load(after["checkpoint"])
    losses = [bits_per_byte(m, tokenizer, TEXT, 32).bits_per_byte for m in (before_model, model)]
    assert losses[1] < 0.7 * losses[0]
    log = [json.loads(line) for line in (after["checkpoint"] / "training.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 40
    assert log[-1]["loss"] < log[0]["loss"]
    # Only what was adapted has moved: embedding and norms are the base's.
    assert torch.equal(model.embedding.weight, before_model.embedding.weight)
    load_adapter(before_model, after["checkpoint"] / "adapter")
    merge(before_model)
    torch.testing.assert_close(model(batch_BT), before_model(batch_BT), rtol=1e-5, atol=1e-5)
    facts = artifact.verify(after["checkpoint"]).about["facts"]
    assert facts["trained_tokens"] == 40 * 4 * 32
    assert facts["sparsity"] < 0.01
    assert step.observe(Sketch(), after).trained_tokens == 40 * 4 * 32
    assert any("parameters learn" in said for said in watch.note.__self__)
    assert watch.meter.flops > 0


def test_the_same_again_and_after_a_kill(
    state: State, work: Callable[..., tuple[Task, Watch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shoestring.train import Training, update

    step = LoRA(rank=2, steps=6, batch=2, context=16, dropout=0.3)
    torch.manual_seed(3)
    whole = step.apply(state, *work("whole"))["checkpoint"]
    real, made = update.move, []

    def dies(*step: object) -> torch.Tensor:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(1)
        return real(*step)

    task, watch = work("killed")
    # A restart point after each step.
    monkeypatch.setattr("shoestring.tune.lora.Training", lambda **settings: Training(**{**settings, "checkpoint_every": 1e-9}))
    with monkeypatch.context() as patch:
        patch.setattr(update, "move", dies)
        torch.manual_seed(3)
        with pytest.raises(KeyboardInterrupt):
            step.apply(state, task, watch)
    assert not task.out.exists()
    torch.manual_seed(99)
    resumed = step.apply(state, task, watch)["checkpoint"]
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("keep_zeros", [True, False])
def test_a_sparse_base(
    tmp_path: Path,
    state: State,
    tokenizer: Tokenizer,
    model: Transformer,
    work: Callable[..., tuple[Task, Watch]],
    keep_zeros: bool,
) -> None:
    for block in model.blocks:
        block.feed_forward.up.weight.data[:, ::2] = 0
    save(model, tokenizer, tmp_path / "sparse")
    task, watch = work(sketch=Sketch(sparsity=0.1))
    step = LoRA(steps=2, batch=2, context=16, keep_zeros=keep_zeros)
    after = step.apply({"checkpoint": tmp_path / "sparse", "tokens": state["tokens"]}, task, watch)
    made, _ = load(after["checkpoint"])
    zeros = all((block.feed_forward.up.weight[:, ::2] == 0).all() for block in made.blocks)
    assert zeros == keep_zeros
    said = " ".join(watch.note.__self__)
    assert ("zeros of 2 pruned matrices stay" in said) == keep_zeros
    assert ("filled the zeros" in said) != keep_zeros


def test_conversations(tmp_path: Path, state: State, work: Callable[..., tuple[Task, Watch]], tokenizer: Tokenizer) -> None:
    rows = [{"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "yes yes"}]} for i in range(12)]
    (tmp_path / "talk.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    step = LoRA(data=str(tmp_path / "talk.jsonl"), steps=30, batch=4, learning_rate=2e-2, context=60)
    after = step.apply({"checkpoint": state["checkpoint"]}, *work())
    model, _ = load(after["checkpoint"])
    prompt = tokenizer.encode(tokenizer.chat([{"role": "user", "content": "q3"}]))
    logits = model(torch.tensor([prompt + tokenizer.encode(" yes")]))
    assert tokenizer.decode([int(logits[0, len(prompt) - 1].argmax())]) == " "
    assert tokenizer.decode([int(logits[0, len(prompt)].argmax())]) == "y"


def test_the_loss_is_transformers_loss(state: State, tokenizer: Tokenizer, model: Transformer) -> None:
    """Over the assistant's tokens only, as labels of -100 elsewhere."""
    transformers = pytest.importorskip("transformers")
    from shoestring.train import next_token
    from shoestring.tune import Conversations, encode

    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    batch = Conversations([encode(tokenizer, talk)], 1, 60, 0, tokenizer.end).batch(0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(state["checkpoint"], dtype=torch.float32)
    made = encode(tokenizer, talk)
    labels = torch.tensor([[token if counts else IGNORED for token, counts in zip(made.tokens.tolist(), made.counted)]])
    expected = theirs(torch.from_numpy(made.tokens)[None], labels=labels).loss
    torch.testing.assert_close(next_token()(model, batch).mean, expected, rtol=1e-5, atol=1e-5)


def test_micro_batches_learn_the_same(state: State, work: Callable[..., tuple[Task, Watch]], batch_BT: torch.Tensor) -> None:
    models = []
    for name, micro in (("whole", None), ("parts", 2)):
        after = LoRA(steps=3, batch=4, micro_batch=micro, context=16).apply(state, *work(name))
        models.append(load(after["checkpoint"])[0])
    torch.testing.assert_close(models[0](batch_BT), models[1](batch_BT), rtol=1e-3, atol=1e-4)


def test_micro_batches_divide_the_batch() -> None:
    assert LoRA(batch=8)._micro_batch(512, "cpu") == 2
    assert LoRA(batch=8)._micro_batch(4096, "cpu") == 1
    assert LoRA(batch=6)._micro_batch(256, "cpu") == 3
    assert LoRA(batch=8)._micro_batch(512, "cuda") == 8
    assert LoRA(batch=8, micro_batch=3)._micro_batch(512, "cpu") == 2


def test_epochs(state: State) -> None:
    step = LoRA(batch=4, context=16, epochs=2)
    assert step._steps(90) == 45


def test_what_does_not_fit(tmp_path: Path, state: State, work: Callable[..., tuple[Task, Watch]], model: Transformer) -> None:
    with pytest.raises(SettingError, match="needs a checkpoint"):
        LoRA().apply({"tokens": state["tokens"]}, *work("a"))
    with pytest.raises(SettingError, match="needs tokens"):
        LoRA().apply({"checkpoint": state["checkpoint"]}, *work("b"))
    with pytest.raises(SettingError, match=r"lora\.context: 65 tokens are more than the model attends over \(64\)"):
        LoRA(context=65).apply(state, *work("c"))
    small = model.config.with_(vocabulary=200)
    with pytest.raises(SettingError, match="tokenize with `tokenizer: checkpoint`"):
        LoRA()._batches(state, small, None, 16, 0, work("d")[1])  # type: ignore[arg-type]
    for wrong in ({"rank": 0}, {"dropout": 1.0}, {"targets": ()}, {"learning_rate": 0}, {"epochs": -1}, {"merge": True}):
        with pytest.raises(ValidationError):
            LoRA(**wrong)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch": 10**9}, "batch"),
        ({"micro_batch": 10**9}, "micro_batch"),
        ({"rank": 10**9}, "rank"),
        ({"steps": 10**12}, "steps"),
        ({"epochs": 1e300}, "epochs"),
        ({"alpha": float("inf")}, "alpha"),
        ({"learning_rate": 1e9}, "learning_rate"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"time_limit": 1e300}, "time_limit"),
        ({"context": 10**12}, "context"),
    ],
)
def test_every_number_has_a_bound(settings: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        LoRA(**settings)


def test_numbers_are_compared_with_what_is_there(
    state: State, work: Callable[..., tuple[Task, Watch]], model: Transformer
) -> None:
    wide = model.config.with_(context=8192)
    with pytest.raises(SettingError, match=r"lora\.batch: 65536 sequences of 8192 tokens are 536,870,912 tokens a step; at most"):
        LoRA(batch=65_536, context=8192).predict(Sketch(model=wide, tokens=1e9), work()[0].hardware)
    for attempt in (lambda: LoRA(rank=64).apply(state, *work("a")), lambda: LoRA(rank=64).predict(Sketch(model=wide), Any)):
        with pytest.raises(SettingError, match=r"lora\.rank: 64 is more than the full rank of every matrix .*at most 32"):
            attempt()


def test_prediction(model: Transformer, work: Callable[..., tuple[Task, Watch]], state: State) -> None:
    hardware = work()[0].hardware
    sketch = Sketch(model=model.config, tokens=32_000.0, sparsity=0.5, bits_per_byte=2.0)
    made = LoRA(context=32, batch=10).predict(sketch, hardware)
    assert made.sketch.trained_tokens == 100 * 320
    assert (made.sketch.sparsity, made.sketch.bits_per_byte) == (0.5, None)
    assert LoRA(context=32, keep_zeros=False).predict(sketch, hardware).sketch.sparsity == 0.0
    task, watch = work("counted")
    step = LoRA(context=32, steps=3)
    step.apply(state, task, watch)
    assert watch.meter.flops == pytest.approx(step.predict(sketch, hardware).usage.flops.value)
    with pytest.raises(SettingError, match="needs a checkpoint"):
        LoRA().predict(Sketch(), hardware)
    with pytest.raises(SettingError, match="needs tokens"):
        LoRA().predict(Sketch(model=model.config), hardware)
    assert LoRA(data="absent").predict(Sketch(model=model.config), hardware).usage.flops.value > 0
