"""A server on a tiny random model with a tokenizer of single bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from fastapi.testclient import TestClient

from shoestring.model import ModelConfig, Transformer
from shoestring.serve import Settings, build
from shoestring.tokenizer import Tokenizer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_ranks({bytes([n]): n for n in range(256)}, r"[\s\S]", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Transformer:
    config = ModelConfig(vocabulary=tokenizer.vocabulary, width=32, layers=2, heads=2, context=256)
    return Transformer(config).initialise(4)


@pytest.fixture
def client(model: Transformer, tokenizer: Tokenizer) -> Iterator[TestClient]:
    app = build(model, tokenizer, "tiny", Settings(slots=2, waiting=2, request_bytes=4000, max_tokens=20, grace=0))
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made
