"""A server on a tiny random model with a tokenizer of single bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from shoestring import model as room
from shoestring.architecture import ModelConfig
from shoestring.model import Transformer
from shoestring.serve import Settings, build
from shoestring.tokenizer import Tokenizer
from tests.serve.live import serving

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


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A model with a context of 4,096: slow enough for its answers to be left in the middle."""
    config = ModelConfig(vocabulary=tokenizer.vocabulary, width=64, layers=4, heads=2, context=4096)
    folder = tmp_path_factory.mktemp("served") / "tiny"
    room.save(Transformer(config).initialise(4), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def server(checkpoint: Path) -> Iterator[str]:
    """The address of a real server in a process of its own."""
    with serving(checkpoint) as (address, _):
        yield address
