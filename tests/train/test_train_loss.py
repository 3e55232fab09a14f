"""The chunked loss against PyTorch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from shoestring.architecture import ModelConfig
from shoestring.data.batch import IGNORED
from shoestring.model import Transformer
from shoestring.train.chunked import chunked
from shoestring.train.loss import cross_entropy


def _case(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 12, generator=generator, dtype=dtype, requires_grad=True)
    head = nn.Linear(12, 31, bias=False, dtype=dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(31, 12, generator=generator, dtype=dtype))
    targets = torch.randint(0, 31, (count,), generator=generator)
    targets[torch.rand(count, generator=generator) < 0.3] = IGNORED
    targets[0] = 5
    return hidden, head, targets


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 10**6))
def test_loss_and_gradients_equal_the_whole_cross_entropy(count, chunk, seed):
    hidden, head, targets = _case(count, seed)
    expected = F.cross_entropy(head(hidden), targets, ignore_index=IGNORED, reduction="sum")
    wanted = torch.autograd.grad(expected * 3, (hidden, head.weight))
    found = cross_entropy(hidden, head, targets, chunk)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(torch.autograd.grad(found * 3, (hidden, head.weight)), wanted):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def test_under_autocast_the_products_are_bf16_and_the_loss_float32():
    hidden, head, targets = _case(24, 1, torch.float32)
    expected = cross_entropy(hidden, head, targets, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_entropy(hidden, head, targets, 8)
    assert found.dtype == torch.float32
    assert found.item() != expected.item()
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
    found.backward()
    assert head.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("chunk", [0, 4])
def test_all_ignored_is_zero_not_nan(chunk):
    hidden, head, targets = _case(6, 2)
    loss = cross_entropy(hidden, head, torch.full_like(targets, IGNORED), chunk)
    loss.backward()
    assert loss.item() == 0
    assert head.weight.grad.abs().max() == 0


def test_a_head_with_a_bias_is_called_as_it_is():
    hidden, _, targets = _case(9, 3)
    head = nn.Linear(12, 31, dtype=torch.float64)
    expected = F.cross_entropy(head(hidden), targets, ignore_index=IGNORED, reduction="sum")
    found = cross_entropy(hidden, head, targets, 4)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    learned = (hidden, *head.parameters())
    for ours, theirs in zip(torch.autograd.grad(found, learned), torch.autograd.grad(expected, learned)):
        torch.testing.assert_close(ours, theirs)


def test_frozen_sides_get_no_gradient():
    hidden, head, targets = _case(9, 4)
    head.weight.requires_grad_(False)
    cross_entropy(hidden, head, targets, 4).backward()
    assert head.weight.grad is None
    assert hidden.grad is not None
    with torch.no_grad():
        cross_entropy(hidden, head, targets, 4)


def test_the_logits_of_a_model_s_head_never_exist_at_once():
    """The head of a Transformer, whatever class it is of, goes chunk by chunk."""
    model = Transformer(ModelConfig(vocabulary=40, width=16, layers=1, heads=2)).initialise()
    seen = []

    def kernel(logits, part):
        seen.append(len(logits))
        return logits.sum(), torch.ones_like(logits)

    chunked(torch.randn(10, 16), model.head, kernel, 4)
    assert seen == [4, 4, 2]
