"""A served model is read once, in the precision that suits it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shoestring import model as room
from shoestring.serve import run
from shoestring.serve.settings import Settings


@pytest.mark.parametrize(
    ("bits", "precision", "dtype"),
    [
        ({4}, "auto", torch.bfloat16),  # PyTorch's int4 kernel wants it
        ({3, 8}, "auto", torch.float32),
        (set(), "auto", torch.float32),
        ({4}, "fp32", torch.float32),
        (set(), "bf16", torch.bfloat16),
    ],
)
def test_a_model_is_read_once(bits: set[int], precision: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[Any, ...]] = []
    monkeypatch.setattr(room, "packed_bits", lambda source: frozenset(bits))
    monkeypatch.setattr(room, "load", lambda *given, **_: reads.append(given))
    run.load("somewhere", Settings(device="cpu", precision=precision))
    assert reads == [("somewhere", dtype, "cpu")]
