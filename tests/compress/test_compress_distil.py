"""Distillation: the divergences against plain formulas, and that learning from a teacher works."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring import artifact
from shoestring.architecture import ModelConfig
from shoestring.compress import RTN, Distil, Magnitude
from shoestring.compress.distil import objective
from shoestring.compress.divergence import DIVERGENCES, Mix, divergence
from shoestring.data.batch import IGNORED
from shoestring.data.loader import Loader
from shoestring.errors import SettingError
from shoestring.model import Transformer, load, save
from shoestring.technique import Task, Watch
from shoestring.tokenizer import Tokenizer


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergences_against_their_definitions(temperature: float) -> None:
    own, theirs = torch.randn(7, 11), torch.randn(7, 11)
    s, t = (torch.softmax(logits.double() / temperature, -1) for logits in (own, theirs))
    m = (s + t) / 2
    expected = {
        "forward": (t * (t / s).log()).sum(),
        "reverse": (s * (s / t).log()).sum(),
        "jsd": 0.5 * (t * (t / m).log()).sum() + 0.5 * (s * (s / m).log()).sum(),
    }
    for kind, value in expected.items():
        assert divergence(own, theirs, kind, temperature)[0].item() == pytest.approx(value.item() * temperature**2, rel=1e-4)
        assert divergence(own, own, kind, temperature)[0].item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_gradients_against_autograd(kind: str, alpha: float) -> None:
    own, theirs, targets = torch.randn(6, 9, dtype=torch.float64), torch.randn(6, 9), torch.randint(0, 9, (6,))
    logits = own.clone().requires_grad_()
    s, t = torch.softmax(logits / 2, -1), torch.softmax(theirs.double() / 2, -1)
    m = (s + t) / 2
    soft = {
        "forward": (t * (t / s).log()).sum(),
        "reverse": (s * (s / t).log()).sum(),
        "jsd": 0.5 * (t * (t / m).log()).sum() + 0.5 * (s * (s / m).log()).sum(),
    }[kind]
    hard = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    ((1 - alpha) * 4 * soft + alpha * hard).backward()
    _, gradient = Mix(kind, 2.0, alpha).loss(own.float(), theirs, targets)
    torch.testing.assert_close(gradient.double(), logits.grad, rtol=1e-4, atol=1e-5)


def test_the_objective_counts_targets_alone_and_in_chunks(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = copy.deepcopy(model)
    torch.nn.init.normal_(teacher.blocks[0].mixer.output.weight, std=0.3)
    tokens = torch.randint(0, 250, (2, 16))
    targets = tokens.roll(-1, 1)
    targets[:, -3:] = IGNORED
    batch = {"tokens": tokens, "targets": targets}
    whole = objective(teacher, Mix("forward", 2.0, 0.25))(model, batch).mean
    with torch.no_grad():
        kept = targets != IGNORED
        own, theirs = model(tokens)[kept], teacher(tokens)[kept]
        hard = torch.nn.functional.cross_entropy(own, targets[kept])
        expected = 0.75 * divergence(own, theirs, "forward", 2.0)[0] / kept.sum() + 0.25 * hard
    assert whole.item() == pytest.approx(expected.item(), rel=1e-4)
    whole.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    monkeypatch.setattr("shoestring.compress.cost.DISTIL_CHUNK", 5)
    chunked = objective(teacher, Mix("forward", 2.0, 0.25))(model, batch).mean
    assert chunked.item() == pytest.approx(whole.item(), rel=1e-5)
    chunked.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)


def loader() -> Loader:
    stream = np.random.default_rng(0).integers(0, 250, 20_000).astype("<u2")
    return Loader(stream, np.array([0, len(stream)]), 4, 32, 0)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_the_student_comes_nearer_and_zeros_stay(model: Transformer, kind: str) -> None:
    teacher = copy.deepcopy(model)
    Magnitude(sparsity=0.5).apply_to(model)
    zeros = {name: module.weight == 0 for name, module in model.matrices()}
    batches, loss = loader(), objective(teacher)
    with torch.no_grad():
        before = loss(model, batches.batch(100)).mean.item()
    log = Distil(teacher="x", kind=kind, learning_rate=3e-3).apply_to(model, teacher, batches, 40)
    with torch.no_grad():
        after = loss(model, batches.batch(100)).mean.item()
    assert after < 0.85 * before
    assert log[-1]["loss"] < log[0]["loss"]
    for name, module in model.matrices():
        assert (module.weight[zeros[name]] == 0).all()
        assert (module.weight != 0).float().mean() == pytest.approx(0.5, abs=0.01)


def test_in_a_recipe(
    checkpoint: Path,
    tokens: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    work: Callable[..., tuple[Task, Watch]],
) -> None:
    Magnitude(sparsity=0.5).apply_to(model)
    save(model, tokenizer, tmp_path / "pruned")
    state = {"checkpoint": tmp_path / "pruned", "tokens": tokens}
    earlier = {"pretrain": {"checkpoint": checkpoint}}
    distil = Distil(teacher="pretrain", tokens=2048, batch_tokens=256, context=64)
    done = distil.apply(state, *work("out", earlier=earlier))
    found = artifact.verify(done["checkpoint"])
    assert found.about["facts"]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert found.about["facts"]["trained_tokens"] == 2048
    assert "training.jsonl" in found.files
    assert load(done["checkpoint"])[0].config == model.config
    again = distil.apply(state, *work("again", earlier=earlier))
    assert artifact.verify(again["checkpoint"]).files["model.safetensors"] == found.files["model.safetensors"]
    with pytest.raises(SettingError, match=r"distil\.teacher: the step 'plan' makes no checkpoint"):
        Distil(teacher="plan").apply(state, *work("none", earlier={"plan": {}}))


def test_what_can_not_be_taught(model: Transformer) -> None:
    other = Transformer(ModelConfig(vocabulary=100, width=32, layers=1, heads=2, context=64)).initialise()
    with pytest.raises(SettingError, match="100 entries, the student's 260"):
        Distil(teacher="x").apply_to(model, other, loader(), 1)
    with pytest.raises(SettingError, match=r"distil\.context"):
        Distil(teacher="x", context=65).length(model.config)
    RTN(group_size=32).apply_to(model)
    with pytest.raises(SettingError, match="quantized already"):
        Distil(teacher="x").apply_to(model, copy.deepcopy(other), loader(), 1)
    for wrong in ({"kind": "total"}, {"alpha": 1.5}, {"temperature": 0}, {"share": 0}, {"tokens": 0}):
        with pytest.raises(ValueError):
            Distil(teacher="x", **wrong)
    with pytest.raises(ValueError):
        Distil()
