"""The techniques in a recipe: artifacts, calibration, predictions, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring import artifact
from shoestring.architecture.counts import gram_widths, linear_parameters
from shoestring.compress import GPTQ, RTN, Distil, Magnitude, Wanda, calibration_tokens, cost
from shoestring.compress import calibration as drawing
from shoestring.errors import SettingError
from shoestring.measure import Hardware
from shoestring.model import Transformer, load
from shoestring.technique import Sketch, Task, Watch, configure
from shoestring.tokenizer import Tokenizer
from tests.compress.conftest import CONFIG

ALL = [
    RTN(group_size=32),
    GPTQ(group_size=32, samples=4, length=32),
    Wanda(samples=4, length=32),
    Magnitude(),
]


@pytest.mark.parametrize("technique", ALL, ids=lambda technique: technique.name)
def test_makes_the_same_artifact_twice_and_says_what_it_is(
    technique: RTN, checkpoint: Path, tokens: Path, work: Callable[..., tuple[Task, Watch]], hardware: Hardware
) -> None:
    state = {"checkpoint": checkpoint, "tokens": tokens}
    sums = []
    for name in ("first", "second"):
        task, watch = work(name)
        done = technique.apply(state, task, watch)
        assert done["checkpoint"] == task.out
        sums.append(artifact.verify(task.out).files["model.safetensors"])
    assert sums[0] == sums[1]
    predicted = technique.predict(Sketch(model=CONFIG), hardware).sketch
    seen = technique.observe(predicted, done)
    assert seen.bits_per_weight == pytest.approx(predicted.bits_per_weight, rel=0.01)
    assert seen.sparsity == pytest.approx(predicted.sparsity, abs=0.15)  # rounding makes zeros of its own
    model, _ = load(done["checkpoint"])
    assert torch.isfinite(model(torch.zeros(1, 8, dtype=torch.long))).all()
    if seen.bits_per_weight < 16:
        assert artifact.manifest(task.out).bytes < 0.5 * artifact.manifest(checkpoint).bytes


def test_what_is_loaded_multiplies_as_what_was_made(
    model: Transformer, checkpoint: Path, work: Callable[..., tuple[Task, Watch]]
) -> None:
    RTN(group_size=32).apply_to(model)
    done = RTN(group_size=32).apply({"checkpoint": checkpoint}, *work("out"))
    loaded, _ = load(done["checkpoint"])
    for (_, ours), (_, theirs) in zip(model.matrices(), loaded.matrices()):
        assert torch.equal(ours.weight_rows(), theirs.weight_rows())


def test_calibrates_with_a_text_of_the_users(tmp_path: Path, checkpoint: Path, work: Callable[..., tuple[Task, Watch]]) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("the cat sat on the mat, and the rain fell. " * 40)
    said: list[str] = []
    wanda = Wanda(calibration=str(text), samples=500, length=16)
    wanda.apply({"checkpoint": checkpoint}, *work("out", note=said.append))
    assert any("fewer than the 500 asked for" in line for line in said)
    assert any("sparse" in line or "zeros" in line for line in said)


def test_calibration_windows_are_whole_apart_and_drawn_by_the_seed() -> None:
    stream = np.arange(1000)
    one, two = drawing.windows(stream, 10, 32, 1), drawing.windows(stream, 10, 32, 2)
    assert one.shape == (10, 32)
    assert (one[:, 0] % 32 == 0).all()
    assert len(set(one[:, 0].tolist())) == 10
    assert torch.equal(one, drawing.windows(stream, 10, 32, 1))
    assert not torch.equal(one, two)


def test_calibration_from_a_text(tokenizer: Tokenizer, model: Transformer, tmp_path: Path) -> None:
    text = "the cat sat on the mat, and the rain fell. " * 40
    drawn = calibration_tokens(tokenizer, text, samples=4, length=32)
    assert drawn.shape == (4, 32)
    assert all(tokenizer.decode(window.tolist()) in text for window in drawn)
    file = tmp_path / "mine.txt"
    file.write_text(text)
    assert torch.equal(calibration_tokens(tokenizer, file, 4, 32), drawn)
    assert not torch.equal(calibration_tokens(tokenizer, text, 4, 32, seed=1), drawn)
    seen: list[tuple[str, float | None]] = []
    GPTQ().apply_to(model, drawn, progress=lambda text, done=None: seen.append((text, done)))
    assert [done for _, done in seen] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "samples", "length", "message"),
    [
        ("the cat " * 20, 16, 256, "0 windows of 256; 16 are asked for: give more text, or a smaller length"),
        ("the cat " * 20, 16, 32, r"3 windows of 32; 16 are asked for: give more text, or samples=3"),
        ("", 1, 1, "has 0 tokens"),
        ("the cat", 0, 8, "must be at least 1"),
    ],
)
def test_too_short_a_text_is_one_line(tokenizer: Tokenizer, text: str, samples: int, length: int, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        calibration_tokens(tokenizer, text, samples, length)


def test_errors_name_what_is_missing(
    checkpoint: Path, tokens: Path, tmp_path: Path, work: Callable[..., tuple[Task, Watch]], tokenizer: Tokenizer
) -> None:
    with pytest.raises(SettingError, match=r"gptq\.calibration: must be given"):
        GPTQ(group_size=32, length=32).apply({"checkpoint": checkpoint}, *work("a"))
    with pytest.raises(SettingError, match="needs a checkpoint"):
        RTN().apply({}, *work("b"))
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(SettingError, match=r"wanda\.length: 32 tokens are more than"):
        Wanda(calibration=str(short), length=32).apply({"checkpoint": checkpoint}, *work("c"))
    other = Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)}, r"\S+|\s+", ["<|endoftext|>"])
    with pytest.raises(SettingError, match="another tokenizer"):
        drawing.draw(other, 2, 16, 0, "wanda", None, tokens)
    with pytest.raises(SettingError, match="did you mean 'bits'"):
        configure(GPTQ, {"bist": 4}, "steps.gptq")


@pytest.mark.parametrize("technique", [*ALL, Distil(teacher="pretrain", tokens=4096)], ids=lambda technique: technique.name)
def test_predictions_are_plain_figures(technique: RTN, hardware: Hardware) -> None:
    sketch = Sketch(model=CONFIG, trained_tokens=1e6, sparsity=0.5)
    made = technique.predict(sketch, hardware)
    assert made.usage.seconds.value > 0
    assert made.usage.peak_memory.value > 4 * linear_parameters(CONFIG)
    assert made.usage.flops.value > 0
    assert made.sketch.sparsity == 0.5
    assert made.sketch.bits_per_byte is None
    nothing = technique.predict(Sketch(), hardware)
    assert nothing.sketch.model is None


def test_a_group_size_is_refused_before_anything_runs(hardware: Hardware) -> None:
    with pytest.raises(SettingError, match="group_size"):
        GPTQ(group_size=96).predict(Sketch(model=CONFIG), hardware)


def test_the_saved_settings_have_the_group_size(checkpoint: Path, tokens: Path, work: Callable[..., tuple[Task, Watch]]) -> None:
    for technique in (RTN(), GPTQ(samples=2, length=16)):
        said: list[str] = []
        task, watch = work(technique.name, note=said.append)
        technique.apply({"checkpoint": checkpoint, "tokens": tokens}, task, watch)
        assert artifact.manifest(task.out).about["settings"]["group_size"] == 64
        assert sum("groups of 64" in line for line in said) == 1
        assert json.loads((task.out / "compression.json").read_text())["settings"]["group_size"] == 64


@pytest.mark.parametrize("grids", [1, 2])
def test_counted_operations_of_the_solver_against_a_count_by_hand(grids: int) -> None:
    counted = 0
    for slot in CONFIG.matrices():
        outputs, inputs = slot.shape
        for _ in range(grids):
            for column in range(inputs):
                for _ in range(column + 1, inputs):
                    counted += 2 * outputs  # a multiply and an add for each output
            counted += 2 * outputs * inputs * inputs + 2 * outputs * inputs  # D H, then the dot products with D
        counted += 2 * outputs * inputs * inputs + 2 * outputs * inputs  # the matrix's own
    factored = sum(width**3 / 3 + width**3 for layer in CONFIG.layers for width in gram_widths(layer, CONFIG.width))
    assert cost.solver_flops(CONFIG, grids) == pytest.approx(counted + factored)
    assert cost.solver_flops(CONFIG, 0) == 0.0


def test_the_meter_is_told_of_the_solver(
    checkpoint: Path, tokens: Path, work: Callable[..., tuple[Task, Watch]], hardware: Hardware
) -> None:
    technique = GPTQ(samples=2, length=16)
    task, watch = work("counted")
    with watch.meter:
        technique.apply({"checkpoint": checkpoint, "tokens": tokens}, task, watch)
    predicted = technique.predict(Sketch(model=CONFIG), hardware).usage.flops.value
    assert watch.meter.usage.flops.value == pytest.approx(predicted)
    assert predicted == cost.walk_flops(CONFIG, 2, 16) + cost.solver_flops(CONFIG, 2)


def test_calibration_windows_begin_with_what_stands_before_a_text() -> None:
    stream = np.array([9, 1, 2, 3, 4, 5, 6, 7, 9, 8, 7, 6])
    assert drawing.windows(stream, 3, 4, 0, prefix=(9,)).tolist() == [[9, 1, 2, 3], [9, 4, 5, 6], [9, 8, 7, 6]]
    assert drawing.windows(stream, 3, 4, 0).tolist() == stream.reshape(3, 4).tolist()


def test_the_precision_that_the_machine_decides_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    from shoestring.compress import base

    monkeypatch.setattr(base, "fast_precision", lambda device: "bf16")
    assert GPTQ().resolved("cpu") == {"precision": "bf16"}
    monkeypatch.setattr(base, "fast_precision", lambda device: "fp32")
    assert GPTQ().resolved("cpu") == {"precision": "fp32"}
    assert GPTQ(precision="bf16").resolved("cpu") == {}
