"""The technique: what it measures on, what it writes, what it predicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from shoestring import artifact
from shoestring.errors import FileError, SettingError
from shoestring.evaluate import Evaluate, bits_per_byte, measure_model
from shoestring.evaluate.cost import evaluation_usage
from shoestring.measure import Quantity
from shoestring.model import Transformer
from shoestring.technique import Sketch, State, Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.tokenizer.fast import GPT2


def numbers(state: State) -> dict[str, Quantity]:
    record = json.loads((state["numbers"] / "numbers.json").read_text())
    return {name: Quantity.from_json(figure) for name, figure in record.items()}


def test_held_out_tokens(
    checkpoint: Path, tokens: Path, model: Transformer, tokenizer: Tokenizer, text: str, work: Callable[..., tuple[Task, Watch]]
) -> None:
    before, (task, watch) = {"checkpoint": checkpoint, "tokens": tokens}, work()
    step = Evaluate(context=32, windows=8)
    state = step.apply(before, task, watch)
    stream = [*tokenizer.encode(text[:700]), tokenizer.end, *tokenizer.encode(text[700:]), tokenizer.end]
    score = bits_per_byte(model, tokenizer, stream, 32, 8, spread=True)
    found = numbers(state)
    assert found["bits_per_byte"].value == pytest.approx(score.bits_per_byte, rel=1e-6)
    assert found["bits_per_byte"].interval is not None
    assert set(found) == {"bits_per_byte", "perplexity", "loss"}
    about = artifact.verify(state["numbers"]).about
    assert about["text"] == "held-out tokens"
    assert step.observe(Sketch(), state).bits_per_byte == found["bits_per_byte"].value
    assert json.loads((state["numbers"] / "windows.json").read_text())["bytes"] == list(score.window_bytes)
    assert watch.meter.flops > 0
    again = step.apply(before, *work("again"))
    assert (again["numbers"] / "numbers.json").read_bytes() == (state["numbers"] / "numbers.json").read_bytes()


def test_held_out_tokens_of_another_tokenizer(
    checkpoint: Path, tmp_path: Path, model: Transformer, tokenizer: Tokenizer, text: str, work: Callable[..., tuple[Task, Watch]]
) -> None:
    from tests.evaluate.conftest import write_tokens

    other = Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)}, GPT2, ["<|endoftext|>"])
    folder = write_tokens(tmp_path / "others", other, [text])
    found = numbers(Evaluate(context=32).apply({"checkpoint": checkpoint, "tokens": folder}, *work()))
    stream = [*tokenizer.encode(text), tokenizer.end]
    assert found["bits_per_byte"].value == pytest.approx(bits_per_byte(model, tokenizer, stream, 32).bits_per_byte, rel=1e-6)


def test_a_text_and_tasks_and_a_reference(
    checkpoint: Path, tmp_path: Path, text: str, model: Transformer, tokenizer: Tokenizer, work: Callable[..., tuple[Task, Watch]]
) -> None:
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "cloze.jsonl").write_text('{"context": "the cat", "continuation": "sat"}\n' * 3)
    step = Evaluate(
        tasks=("bits_per_byte", str(tmp_path / "cloze.jsonl")),
        text=str(tmp_path / "text.txt"),
        context=32,
        windows=4,
        reference="first",
        limit=2,
    )
    assert step.references() == {"reference": "first"}
    task, watch = work(earlier={"first": {"checkpoint": checkpoint}})
    found = numbers(step.apply({"checkpoint": checkpoint}, task, watch))
    assert found["divergence"].value == pytest.approx(0, abs=1e-9)
    assert found["agreement"].value == 1.0
    assert "2 continuations" in found["cloze.perplexity"].method
    assert found["bits_per_byte"].value == pytest.approx(bits_per_byte(model, tokenizer, text, 32, 4).bits_per_byte, rel=1e-6)
    in_memory = measure_model(model, tokenizer, tmp_path / "text.txt", 32, 4, [tmp_path / "cloze.jsonl"], 2, model)
    assert in_memory.keys() == found.keys()
    assert in_memory["perplexity"].value == pytest.approx(found["perplexity"].value, rel=1e-6)


def test_documents_are_joined_by_the_end_token(tmp_path: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    (tmp_path / "two.jsonl").write_text('{"text": "the cat"}\n{"text": "a mat"}\n')
    stream = [*tokenizer.encode("the cat"), tokenizer.end, *tokenizer.encode("a mat"), tokenizer.end]
    found = measure_model(model, tokenizer, tmp_path / "two.jsonl", context=64)
    assert found["loss"].value == pytest.approx(bits_per_byte(model, tokenizer, stream).loss, rel=1e-6)


def test_the_beginning_of_a_long_text_is_enough(tmp_path: Path, model: Transformer, tokenizer: Tokenizer, text: str) -> None:
    (tmp_path / "long.txt").write_text((text + "\n") * 20)
    some = measure_model(model, tokenizer, tmp_path / "long.txt", context=16, windows=2)
    whole = bits_per_byte(model, tokenizer, (text + "\n") * 20, context=16, windows=2)
    assert some["loss"].value == pytest.approx(whole.loss, rel=1e-6)


def test_the_embedded_text(checkpoint: Path, work: Callable[..., tuple[Task, Watch]]) -> None:
    state = Evaluate(context=512, windows=4).apply({"checkpoint": checkpoint}, *work())
    about = artifact.manifest(state["numbers"]).about
    assert about["text"] == "embedded: pydoc topics"
    assert about["context"] == 64  # the model's own


def test_what_is_missing(checkpoint: Path, tmp_path: Path, work: Callable[..., tuple[Task, Watch]]) -> None:
    with pytest.raises(SettingError, match="needs a checkpoint"):
        Evaluate().apply({}, *work())
    with pytest.raises(FileError, match=r"absent\.txt"):
        Evaluate(text=str(tmp_path / "absent.txt")).apply({"checkpoint": checkpoint}, *work())
    with pytest.raises(FileError, match=r"absent\.jsonl"):
        Evaluate(tasks=(str(tmp_path / "absent.jsonl"),)).apply({"checkpoint": checkpoint}, *work())
    assert not (tmp_path / "numbers").exists()
    with pytest.raises(ValidationError):
        Evaluate(context=1)
    with pytest.raises(ValidationError):
        Evaluate(tasks=())


def test_prediction(model: Transformer, work: Callable[..., tuple[Task, Watch]], tmp_path: Path) -> None:
    hardware = work()[0].hardware
    sketch = Sketch(model=model.config, heldout_tokens=10_000)
    one = Evaluate(context=32, windows=8).predict(sketch, hardware)
    two = Evaluate(context=32, windows=16, reference="a").predict(sketch, hardware)
    assert two.usage.flops.value == pytest.approx(4 * one.usage.flops.value)
    assert one.sketch == sketch
    few = Evaluate(context=32, windows=500).predict(Sketch(model=model.config, heldout_tokens=100), hardware)
    assert few.usage.flops.value == pytest.approx(one.usage.flops.value * 3 / 8)
    with pytest.raises(SettingError, match="needs a checkpoint"):
        Evaluate().predict(Sketch(), hardware)
    (tmp_path / "task.jsonl").write_text("x" * 4000)
    task = Evaluate(tasks=(str(tmp_path / "task.jsonl"),)).predict(sketch, hardware)
    assert task.usage.flops.value == evaluation_usage(model.config, 3000, 64, 1, hardware).flops.value
