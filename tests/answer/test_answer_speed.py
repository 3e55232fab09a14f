"""How fast a model answers: the technique, its figures, a drafter as a factor of a composition; and what wraps an answerer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from shoestring import model as room
from shoestring.answer import Answer, Answerer, Local, Speed
from shoestring.architecture import ModelConfig
from shoestring.errors import SettingError
from shoestring.explore import compose
from shoestring.infer import GREEDY, Answering, Sampling, Speculate
from shoestring.infer.drafters import DRAFTERS
from shoestring.measure import Meter, find, total
from shoestring.model import Transformer
from shoestring.recipe import load_recipe
from shoestring.technique import Sketch, State, Task, Watch
from shoestring.tokenizer import Tokenizer

CPU = find("cpu")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_ranks({bytes([n]): n for n in range(256)}, r"[\s\S]", ["<|endoftext|>"])


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    config = ModelConfig(vocabulary=tokenizer.vocabulary, width=32, layers=2, heads=2, context=64)
    return Transformer(config).initialise(2).eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, model: Transformer, tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    room.save(model, tokenizer, folder)
    return folder


def applied(step: Speed | Speculate, state: State, folder: Path) -> State:
    with Meter(CPU) as meter:
        return step.apply(state, Task(folder / step.name, folder / "scratch", CPU), Watch(meter, note=lambda text: None))


def test_figures_belong_together(checkpoint: Path, tmp_path: Path) -> None:
    step = Speed(rows=3, prompt=8, tokens=12, repeats=2)
    state = applied(step, {"checkpoint": checkpoint}, tmp_path)
    figures = {name: figure["value"] for name, figure in json.loads((state["numbers"] / "numbers.json").read_text()).items()}
    whole = 3 * 12 / figures["tokens_per_second"]
    assert figures["time_to_first_token"] + 11 * figures["time_per_token"] == pytest.approx(whole)
    assert figures["energy_per_million"] == pytest.approx(whole * CPU.watts / 36 * 1e6)
    assert figures["money_per_million"] == pytest.approx(whole / 3600 * CPU.price_per_hour / 36 * 1e6)


def test_a_context_that_is_too_short_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"speed: prompts of 60 .* context of 64"):
        applied(Speed(prompt=60, tokens=12), {"checkpoint": checkpoint}, tmp_path)
    with pytest.raises(SettingError, match=r"speed: needs a checkpoint"):
        Speed().predict(Sketch(), CPU)


def test_steps_extend_how_a_model_answers(checkpoint: Path, tmp_path: Path) -> None:
    state = applied(Speculate(guesses=3), {"checkpoint": checkpoint}, tmp_path)
    assert Answering.of(state) == Answering(drafter="ngram", guesses=3)
    state = applied(Speed(prompt=8, tokens=8, repeats=1), state, tmp_path)
    assert "drafter ngram" in (state["numbers"] / "numbers.json").read_text()
    (state["answering"] / "answering.json").write_text('{"drafter": "ngrem"}')
    with pytest.raises(SettingError, match=r"answering.json.drafter: no drafter called 'ngrem'; did you mean 'ngram'"):
        Answering.of(state)


def test_a_drafter_and_a_quantizer_are_factors_of_one_composition(checkpoint: Path, tmp_path: Path) -> None:
    steps = [
        {"pretrained": {"source": str(checkpoint)}},
        {"rtn": {"group_size": 32}},
        {"speculate": {"guesses": 2}},
        {"speed": {"prompt": 8, "tokens": 8, "repeats": 1}},
    ]
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"quality": False, "steps": steps}))
    found = compose(load_recipe(file), ["rtn", "speculate"], tmp_path / "out")
    speeds = [effect for effect in found.effects if effect.figure == "tokens_per_second"]
    assert [effect.factors for effect in speeds] == [("rtn",), ("speculate",), ("rtn", "speculate")]
    assert all(effect.ratio > 0 for effect in speeds)


@dataclass(frozen=True)
class SelfConsistency:
    """Several drawn answers to a prompt, of which the commonest stays."""

    base: Answerer
    votes: int

    def answer(self, prompts: Sequence[str], sampling: Sampling) -> list[Answer]:
        found = []
        for prompt in prompts:
            drawn = [self.base.answer([prompt], sampling.model_copy(update={"seed": seed}))[0] for seed in range(self.votes)]
            texts = [one.text for one in drawn]
            found.append(together(max(texts, key=texts.count), drawn))
        return found


@dataclass(frozen=True)
class Cascade:
    """A small model's answer unless it is too short; then the large one is asked."""

    small: Answerer
    large: Answerer
    least: int

    def answer(self, prompts: Sequence[str], sampling: Sampling) -> list[Answer]:
        found = []
        for prompt in prompts:
            [first] = self.small.answer([prompt], sampling)
            asked = [first] if first.tokens_out >= self.least else [first, *self.large.answer([prompt], sampling)]
            found.append(together(asked[-1].text, asked))
        return found


def together(text: str, answers: list[Answer]) -> Answer:
    parts = sum(one.tokens_in for one in answers), sum(one.tokens_out for one in answers)
    return Answer(text, *parts, total(one.usage for one in answers))


def test_settings_of_answering_reach_the_engine(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[int] = []
    monkeypatch.setitem(DRAFTERS._makes, "ngram", lambda tokens, count: wanted.append(count) or [])
    Local(model, tokenizer, CPU, Answering(drafter="ngram", guesses=7)).answer(
        ["abc"], GREEDY.model_copy(update={"max_tokens": 20})
    )
    assert max(wanted) == 7


def test_a_wrapper_adds_what_it_used(model: Transformer, tokenizer: Tokenizer) -> None:
    base = Local(model, tokenizer, CPU, Answering())
    sampling = GREEDY.model_copy(update={"max_tokens": 6})
    one, other = base.answer(["abc", "de"], sampling)
    assert (one.tokens_in, other.tokens_in) == (3, 2)
    [voted] = SelfConsistency(base, 3).answer(["abc"], sampling)
    assert voted.text == one.text
    assert voted.usage.flops.value == pytest.approx(3 * base.answer(["abc"], sampling)[0].usage.flops.value)
    [asked] = Cascade(base, base, 7).answer(["abc"], sampling)
    assert asked.tokens_out == 2 * one.tokens_out
