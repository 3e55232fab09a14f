"""What is gathered of gradients, against one backward pass a row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from shoestring.architecture import ModelConfig
from shoestring.model import Transformer
from shoestring.train.gradients import NORMS, SQUARES, Statistic, gather, norms
from shoestring.train.loss import next_token

CONFIG = ModelConfig(vocabulary=31, width=16, layers=2, heads=2, context=12)


@pytest.fixture
def model() -> Transformer:
    model = Transformer(CONFIG).initialise(3)
    model.final_norm.requires_grad_(False)
    return model


def batches() -> list[dict[str, torch.Tensor]]:
    generator, found = torch.Generator().manual_seed(0), []
    for rows in (3, 2):
        tokens = torch.randint(0, 31, (rows, 13), generator=generator)
        targets = tokens[:, 1:].clone()
        targets[:, :4] = -100
        found.append({"tokens": tokens[:, :-1], "targets": targets, "documents": torch.arange(12).expand(rows, 12) // 5})
    return found


def naive(model: Transformer) -> Iterator[dict[str, torch.Tensor]]:
    """Each row's gradients."""
    for batch in batches():
        for row in range(len(batch["tokens"])):
            model.zero_grad()
            next_token(0)(model, {name: column[row : row + 1] for name, column in batch.items()}).total.backward()
            yield {name: matrix.weight.grad.clone() for name, matrix in model.matrices()}


def test_squares_and_norms_against_one_pass_a_row(model: Transformer) -> None:
    rows = list(naive(model))
    model.zero_grad()
    squares, lengths = gather(model, batches(), SQUARES), gather(model, batches(), NORMS)
    assert set(squares) == {name for name, _ in model.matrices()}
    for name in squares:
        torch.testing.assert_close(squares[name], torch.stack([row[name].square() for row in rows]).sum(0), rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(lengths[name], torch.stack([row[name].square().sum() for row in rows]), rtol=1e-4, atol=1e-9)
    assert all(p.grad is None for p in model.parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["final_norm.weight"]


def test_both_ways_to_a_norm_agree() -> None:
    inputs, gradients = torch.randn(3, 9, 5), torch.randn(3, 9, 7)
    long = (gradients.mT @ inputs).square().sum((1, 2))
    torch.testing.assert_close(norms(inputs, gradients), long)
    wide = torch.randn(3, 2, 50), torch.randn(3, 2, 40)
    torch.testing.assert_close(norms(*wide), (wide[1].mT @ wide[0]).square().sum((1, 2)))


def test_a_statistic_of_ones_own_is_a_function(model: Transformer) -> None:
    """Random projections of each row's gradient (LESS, arXiv 2402.04333)."""
    signs = torch.randn(4, 16 * 16, generator=torch.Generator().manual_seed(1))
    projected = Statistic(lambda a, g: (g.mT @ a).flatten(1)[:, : 16 * 16] @ signs.T, lambda x, y: torch.cat((x, y)))
    found = gather(model, batches(), projected)
    expected = torch.stack([signs @ row["blocks.0.mixer.query"].flatten() for row in naive(model)])
    torch.testing.assert_close(found["blocks.0.mixer.query"], expected, rtol=1e-3, atol=1e-6)


def test_nothing_is_left_behind_when_it_fails(model: Transformer) -> None:
    with pytest.raises(KeyError):
        gather(model, [{"tokens": batches()[0]["tokens"]}], SQUARES)
    assert not model.embedding._forward_hooks
    assert model.embedding.weight.requires_grad
