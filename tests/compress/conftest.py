"""A tiny model with weights sharp enough to matter, tokens, and a place to work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from shoestring import artifact
from shoestring.architecture import ModelConfig
from shoestring.measure import Hardware, Meter
from shoestring.model import Transformer, save
from shoestring.technique import Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.tokenizer.fast import GPT2

CONFIG = ModelConfig(vocabulary=260, width=64, layers=2, heads=4, kv_heads=2, feed_forward_width=128, context=64)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"th": 256, b"the": 257}
    return Tokenizer.from_ranks(ranks, GPT2, ["<|endoftext|>"])


@pytest.fixture
def model() -> Transformer:
    made = Transformer(CONFIG).initialise(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
            if name.endswith("norm.weight"):  # inputs of unlike size, as in real models
                parameter.copy_(torch.linspace(0.2, 3.0, len(parameter)))
    return made.eval()


@pytest.fixture
def calibration() -> Tensor:
    return torch.randint(0, 250, (6, 32), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def hardware() -> Hardware:
    return Hardware("test", "cpu", {"fp32": 1e11, "bf16": 1e11}, 1e10, 1e9, 10.0, 0.1)


@pytest.fixture
def work(tmp_path: Path, hardware: Hardware) -> Callable[..., tuple[Task, Watch]]:
    def make(name: str, **more: object) -> tuple[Task, Watch]:
        scratch = tmp_path / f"{name}.scratch"
        note = more.pop("note", lambda said: None)
        return Task(tmp_path / name, scratch, hardware, **more), Watch(Meter(hardware), note)  # type: ignore[arg-type]

    return make


@pytest.fixture
def checkpoint(tmp_path: Path, model: Transformer, tokenizer: Tokenizer) -> Path:
    save(model, tokenizer, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def tokens(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    draw = np.random.default_rng(0)
    flat = np.concatenate([np.append(draw.integers(97, 123, 99), tokenizer.end) for _ in range(40)]).astype("<u2")
    offsets = np.arange(0, len(flat) + 1, 100).astype("<i8")
    with artifact.writing(tmp_path / "tokens", "tokens", {"dtype": "uint16", "vocabulary": tokenizer.vocabulary}) as draft:
        for side in ("train", "heldout"):
            (draft / f"{side}.bin").write_bytes(flat.tobytes())
            np.save(draft / f"{side}.offsets.npy", offsets)
        tokenizer.save(draft)
    return tmp_path / "tokens"
