"""A tiny model and a tokenizer of single bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from shoestring import artifact
from shoestring.architecture import ModelConfig
from shoestring.measure import Hardware, Meter
from shoestring.model import Transformer
from shoestring.technique import Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.tokenizer.fast import GPT2
from shoestring.tokenizer.prefix import post_processor

CONFIG = ModelConfig(vocabulary=260, width=32, layers=2, heads=2, kv_heads=1, context=64)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"th": 256, b"the": 257}
    return Tokenizer.from_ranks(ranks, GPT2, ["<|endoftext|>"])


@pytest.fixture(scope="session")
def begun(tokenizer: Tokenizer) -> Tokenizer:
    """The same with a BOS that its post-processor puts before every text."""
    added = [*tokenizer.record["added_tokens"], tokenizer.record["added_tokens"][0] | {"id": 259, "content": "<s>"}]
    record = tokenizer.record | {"added_tokens": added, "post_processor": post_processor("<s>", 259)}
    return Tokenizer(record, tokenizer.config | {"bos_token": "<s>"})


@pytest.fixture(scope="session")
def model() -> Transformer:
    made = Transformer(CONFIG).initialise(1)
    for parameter in made.parameters():  # sharp enough that choices differ
        parameter.data.mul_(3.0)
    return made.eval()


@pytest.fixture(scope="session")
def text() -> str:
    draw = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "naïve", "日本", "12", "\n"]
    return " ".join(draw.choice(words) for _ in range(400))


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., tuple[Task, Watch]]:
    def make(name: str = "numbers", **more: object) -> tuple[Task, Watch]:
        hardware = Hardware("test", "cpu", {"fp32": 1e11}, 1e10, 1e9, 10.0, 0.1)
        meter = Meter(hardware)
        return Task(tmp_path / name, tmp_path / f"{name}.scratch", hardware, **more), Watch(meter, lambda said: None)  # type: ignore[arg-type]

    return make


@pytest.fixture
def checkpoint(tmp_path: Path, model: Transformer, tokenizer: Tokenizer) -> Path:
    from shoestring.model import save

    save(model, tokenizer, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def write_tokens(folder: Path, tokenizer: Tokenizer, documents: list[str]) -> Path:
    """A tokens artifact whose held-out side, and train side, are these documents."""
    import numpy as np

    encoded = [[*tokenizer.prefix, *tokenizer.encode(document), tokenizer.end] for document in documents]
    flat = np.array([token for tokens in encoded for token in tokens], dtype="<u2")
    offsets = np.cumsum([0] + [len(tokens) for tokens in encoded]).astype("<i8")
    about = {"dtype": "uint16", "vocabulary": tokenizer.vocabulary, "prefix": list(tokenizer.prefix)}
    with artifact.writing(folder, "tokens", about) as draft:
        for side in ("train", "heldout"):
            (draft / f"{side}.bin").write_bytes(flat.tobytes())
            np.save(draft / f"{side}.offsets.npy", offsets)
        tokenizer.save(draft)
    return folder


@pytest.fixture
def tokens(tmp_path: Path, tokenizer: Tokenizer, text: str) -> Path:
    return write_tokens(tmp_path / "tokens", tokenizer, [text[:700], text[700:]])
