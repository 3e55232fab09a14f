"""What may follow what: a wrong order is refused before anything runs, and what the forecast accepts can be applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shoestring import artifact
from shoestring.architecture import ModelConfig
from shoestring.compress import GPTQ, RTN, Distil, Magnitude, Wanda
from shoestring.errors import SettingError
from shoestring.infer import Sample
from shoestring.measure import Kind, Meter, find, no_usage, unknown
from shoestring.model import Pretrained, Transformer, save
from shoestring.recipe.forecast import Forecast, ahead, refuse_order
from shoestring.recipe.recipe import Step
from shoestring.technique import Budget, Sketch, State, Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.tune import LoRA

CPU = find("cpu")
STEPS = {
    "magnitude": Magnitude(),
    "wanda": Wanda(samples=2, length=16),
    "rtn": RTN(bits=4, group_size=32),
    "gptq": GPTQ(bits=4, group_size=32, samples=2, length=16),
    "distil": Distil(teacher="first", tokens=64, batch_tokens=32, context=16),
    "lora": LoRA(rank=2, steps=1, batch=2, context=16),
    "sample": Sample(prompts=("the",), max_tokens=2),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State, Sketch]:
    """A folder, a model of two layers with tokens in it, and the sketch of both."""
    folder = tmp_path_factory.mktemp("order")
    tokenizer = Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)}, r"\s?\S+", ["<|endoftext|>"])
    config = ModelConfig(vocabulary=tokenizer.vocabulary, width=32, layers=2, heads=2, feed_forward_width=64, context=32)
    save(Transformer(config).initialise(0), tokenizer, folder / "base")
    about = {"dtype": "uint16", "vocabulary": tokenizer.vocabulary, "train_tokens": 2000, "heldout_tokens": 500}
    with artifact.writing(folder / "tokens", "tokens", about) as draft:
        tokenizer.save(draft)
        for side, count in (("train", 2000), ("heldout", 500)):
            np.random.default_rng(0).integers(0, 256, count).astype("<u2").tofile(draft / f"{side}.bin")
            np.save(draft / f"{side}.offsets.npy", np.array([0, count], "<i8"))
    sketch = Sketch(vocabulary=tokenizer.vocabulary, tokens=2000.0, heldout_tokens=500.0, model=config, trained_tokens=640.0)
    return folder, {"checkpoint": folder / "base", "tokens": folder / "tokens"}, sketch


def forecast(sketch: Sketch, *names: str) -> list[Forecast]:
    """Of these steps after the base."""
    first, nothing = Step("first", Pretrained(source="base")), unknown("B", "", Kind.PREDICTED)
    found = [Forecast(first, no_usage(Kind.PREDICTED), nothing, sketch)]
    for name in names:
        step = Step(name, STEPS[name])
        refuse_order(step, found)
        found.append(ahead(step, (), found[-1].sketch, Budget(), CPU))
    return found


@pytest.mark.parametrize("first", STEPS)
def test_what_the_forecast_accepts_can_be_applied(first: str, base: tuple[Path, State, Sketch], tmp_path: Path) -> None:
    _, state, sketch = base
    one = STEPS[first]

    def applied(name: str, before: State, known: Sketch) -> State:
        task = Task(tmp_path / name, tmp_path / f"{name}.scratch", CPU, sketch=known, earlier={"first": state})
        with Meter(CPU) as meter:
            return STEPS[name.partition("-")[0]].apply(before, task, Watch(meter, lambda text: None))

    made = applied(first, state, sketch)
    known = one.observe(forecast(sketch, first)[-1].sketch, made)
    for second in STEPS:
        try:
            forecast(sketch, first, second)
        except SettingError:
            with pytest.raises(SettingError):  # and nothing is refused without need
                applied(f"{second}-refused", made, known)
        else:
            applied(f"{second}-after", made, known)


def test_the_order_that_works_is_named(base: tuple[Path, State, Sketch]) -> None:
    sketch = base[2]
    with pytest.raises(SettingError, match=r"^steps\.wanda: needs weights .* steps\.gptq packs them; put wanda before gptq$"):
        forecast(sketch, "magnitude", "gptq", "sample", "wanda")
    forecast(sketch, "wanda", "gptq", "lora", "rtn")
    with pytest.raises(SettingError, match=r"steps\.rtn: .* steps\.first packs them; start from a checkpoint that is not"):
        forecast(sketch.with_(bits_per_weight=4.5), "rtn")
