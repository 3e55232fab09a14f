"""The Sample technique: text from a checkpoint, the same each time, its cost counted; packed layers say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from shoestring import artifact
from shoestring import model as room
from shoestring.architecture import ModelConfig
from shoestring.errors import SettingError
from shoestring.infer import Sample, Sampling, cost, generate, stop_tokens
from shoestring.infer.sample import unpack_layers
from shoestring.measure import Meter, find
from shoestring.model import PackedLinear, Transformer
from shoestring.technique import Sketch, State, Task, Watch, configure
from shoestring.tokenizer import Tokenizer

CPU = find("cpu")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_ranks({bytes([n]): n for n in range(256)}, r"[\s\S]", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


@pytest.fixture(scope="module")
def bytes_model(tokenizer: Tokenizer) -> Transformer:
    return Transformer(ModelConfig(vocabulary=tokenizer.vocabulary, width=64, layers=2, heads=2, context=64)).initialise(2)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, bytes_model: Transformer, tokenizer: Tokenizer) -> State:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    room.save(bytes_model, tokenizer, folder)
    return {"checkpoint": folder}


def work(folder: Path, meter: Meter, seed: int = 0) -> tuple[Task, Watch]:
    return Task(folder / "text", folder / "scratch", CPU, seed), Watch(meter)


def run(step: Sample, state: State, folder: Path, seed: int = 0) -> tuple[list[dict], float]:
    with Meter(CPU) as meter:
        made = step.apply(state, *work(folder, meter, seed))
    assert "text" in made
    assert artifact.verify(made["text"]).kind == "text"
    return json.loads((made["text"] / "samples.json").read_text("utf-8")), meter.flops


def test_samples_are_those_of_generate(state: State, bytes_model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    samples, flops = run(Sample(prompts=("Hello", ""), max_tokens=9, temperature=0), state, tmp_path)
    prompts = [tokenizer.encode("Hello"), [tokenizer.end]]
    answers = generate(bytes_model, prompts, Sampling(temperature=0, max_tokens=9), stop_tokens(tokenizer))
    expected = [{"prompt": text, "text": tokenizer.decode(answer)} for text, answer in zip(("Hello", ""), answers)]
    assert samples == expected
    by_hand = sum(
        cost.prefill_flops(bytes_model.config, 1, len(prompt))
        + cost.decode_total_flops(bytes_model.config, 1, len(prompt), min(8, len(answer)))
        for prompt, answer in zip(prompts, answers)
    )
    assert flops == pytest.approx(by_hand)


def test_the_seed_decides(state: State, tmp_path: Path) -> None:
    step = Sample(prompts=("a", "a"), max_tokens=12, temperature=1.5)
    first, again, other = (run(step, state, tmp_path / str(n), seed)[0] for n, seed in enumerate((0, 0, 9)))
    assert first == again != other
    assert first[0] != first[1], "two equal prompts should show two samples"


def test_long_wishes_are_cut_to_the_context_and_chat_has_its_form(state: State, tmp_path: Path) -> None:
    samples, _ = run(Sample(prompts=("x" * 60,), max_tokens=500, temperature=0), state, tmp_path)
    assert len(samples[0]["text"].encode("utf-8", "replace")) > 0
    samples, _ = run(Sample(prompts=("Hi",), max_tokens=3, chat=True), state, tmp_path)
    assert samples[0]["prompt"] == "Hi"
    with pytest.raises(SettingError, match="context of 64"):
        run(Sample(prompts=("x" * 64,)), state, tmp_path)


def test_prediction_and_its_needs() -> None:
    config = ModelConfig(vocabulary=4096, width=256, layers=4, heads=4, context=256)
    short, long = (Sample(max_tokens=count).predict(Sketch(model=config), CPU).usage for count in (10, 100))
    start = 0.3  # opening a checkpoint, whatever is asked of it
    assert 5 < (long.seconds.value - start) / (short.seconds.value - start) < 12  # type: ignore[operator]
    assert long.flops.value > short.flops.value  # type: ignore[operator]
    with pytest.raises(SettingError, match="sample: needs a checkpoint"):
        Sample().predict(Sketch(), CPU)
    with pytest.raises(SettingError, match=r"sample\.prompts"):
        configure(Sample, {"prompts": []}, "sample")


def test_unpacked_layers_say_the_same() -> None:
    model = Transformer(ModelConfig(vocabulary=97, width=64, layers=1, heads=2, context=64)).initialise(2)
    draw = torch.Generator().manual_seed(0)
    for name, layer in room.linears(model.blocks[0]).items():  # type: ignore[arg-type]
        codes = torch.randint(-8, 8, layer.weight.shape, generator=draw)  # type: ignore[arg-type]
        scales = torch.rand(layer.weight.shape[0], layer.weight.shape[1] // 32, generator=draw) * 0.05  # type: ignore[index]
        parent, _, last = name.rpartition(".")
        setattr(model.blocks[0].get_submodule(parent), last, PackedLinear.from_parts(codes, scales, None, 4, 32))
    packed = generate(model, [[1, 2, 3]], Sampling(temperature=0, max_tokens=20))
    unpack_layers(model)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    assert generate(model, [[1, 2, 3]], Sampling(temperature=0, max_tokens=20)) == packed


def test_turn_ends_stop(tokenizer: Tokenizer) -> None:
    assert stop_tokens(tokenizer) == {256, 258}
