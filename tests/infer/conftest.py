"""A tiny model whose greedy answers are not constant, and the naive way to decode it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from shoestring.architecture import ModelConfig
from shoestring.model import Transformer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model() -> Transformer:
    config = ModelConfig(vocabulary=97, width=32, layers=2, heads=4, kv_heads=2, context=192)
    made = Transformer(config).initialise(3)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    return made


@pytest.fixture(scope="session")
def naive(model: Transformer) -> Callable[[list[int], int], list[int]]:
    """Greedy decoding without a cache: the whole text is read again for each token."""

    def decode(prompt: list[int], count: int) -> list[int]:
        tokens = list(prompt)
        with torch.no_grad():
            for _ in range(count):
                tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        return tokens[len(prompt) :]

    return decode
