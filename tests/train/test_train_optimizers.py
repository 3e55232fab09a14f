"""Every optimizer of the table: it learns, pulls on matrices only, and goes on bit for bit; Lion against its formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring.architecture import ModelConfig
from shoestring.model import Transformer
from shoestring.train import Around, Callback, Plan, Training, journal, train
from shoestring.train.optimizers import OPTIMIZERS, decayed
from shoestring.train.optimizers.muon import orthogonal

CONFIG = ModelConfig(vocabulary=13, width=16, layers=1, heads=2, context=8)
EACH = pytest.mark.parametrize("name", OPTIMIZERS)


def counting(step: int) -> dict[str, torch.Tensor]:
    """Rows that count upwards: easy to learn."""
    rows_BT = (torch.arange(4)[:, None] * 3 + step + torch.arange(9)) % 13
    return {"tokens": rows_BT[:, :-1], "targets": rows_BT[:, 1:]}


def learned(name: str, **around: Any) -> tuple[list[float], Transformer]:
    model = Transformer(CONFIG).initialise(0)
    settings = Training(optimizer=name, log_every=1, checkpoint_every=1e-9)
    log = train(model, counting, Plan(30, 3e-3), settings=settings, around=Around(**around))
    return [entry["loss"] for entry in log], model


class Stop(Exception):
    pass


class Dies(Callback):
    def after_step(self, model: Any, optimizer: Any, step: int) -> None:
        if step == 20:
            raise Stop


@EACH
def test_it_learns_and_a_restart_ends_with_the_same_bits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SAVING", 1e9)
    losses, whole = learned(name)
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(Stop):
        learned(name, scratch=tmp_path, callbacks=(Dies(),))
    notes: list[str] = []
    _, again = learned(name, scratch=tmp_path, note=notes.append)
    assert "goes on at step" in notes[0]
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), again.parameters(), strict=True))


@EACH
def test_only_matrices_are_pulled_towards_zero_and_what_is_kept_is_what_was_said(name: str) -> None:
    model = Transformer(CONFIG).initialise(0)
    pulled = decayed(model)
    assert 0 < len(pulled) < len(list(model.parameters()))
    optimizer = OPTIMIZERS[name].make(model, Training(weight_decay=0.5), 0.1)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kept = sum(value.numel() for state in optimizer.state.values() for value in state.values() if getattr(value, "ndim", 0))
    whole, matrices = sum(value.numel() for value in model.parameters()), sum(slot.size for slot in CONFIG.matrices())
    assert kept == OPTIMIZERS[name].kept(matrices, whole - matrices)
    for key, value in model.named_parameters():
        torch.testing.assert_close(value, before[key] * (0.95 if key in pulled else 1.0))


def test_muon_moves_a_matrix_by_nearly_orthogonal_steps() -> None:
    for shape in ((6, 10), (10, 6)):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        moved = orthogonal(gradient)
        assert ((values := torch.linalg.svdvals(moved)) > 0.6).all()
        assert (values < 1.3).all()
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        turned = left.T @ moved @ right.T
        torch.testing.assert_close(turned, torch.diag(turned.diagonal()))


def test_lion_is_its_formula() -> None:
    model = torch.nn.Linear(3, 2, bias=False).double()
    optimizer = OPTIMIZERS["lion"].make(model, Training(weight_decay=0.2, betas=(0.9, 0.99)), 0.01)
    weight, mean = model.weight.detach().clone(), torch.zeros(2, 3).double()
    for step in range(5):
        gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        model.weight.grad = gradient
        optimizer.step()
        weight = weight - 0.01 * 0.2 * weight - 0.01 * torch.sign(0.9 * mean + 0.1 * gradient)
        mean = 0.99 * mean + 0.01 * gradient
        torch.testing.assert_close(model.weight.detach(), weight)
