"""A tiny model, a tokenizer of single bytes, tokens of theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring import artifact
from shoestring.architecture import ModelConfig
from shoestring.measure import Hardware, Meter
from shoestring.model import Transformer, save
from shoestring.technique import State, Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.tokenizer.fast import GPT2

CONFIG = ModelConfig(vocabulary=258, width=32, layers=2, heads=4, kv_heads=2, feed_forward_width=48, context=64)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)}, GPT2, ["<|endoftext|>", "<|im_end|>"])


@pytest.fixture
def model() -> Transformer:
    made = Transformer(CONFIG).initialise(1).eval()
    made.embedding.weight.data.mul_(10)  # the frozen head must be able to say something loudly
    return made


@pytest.fixture
def batch_BT() -> torch.Tensor:
    return torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def state(tmp_path: Path, tokenizer: Tokenizer, model: Transformer) -> State:
    """A checkpoint, and tokens of a text with little in it to learn."""
    flat = np.array([*tokenizer.encode("the cat sat on the mat. " * 60), tokenizer.end], dtype="<u2")
    with artifact.writing(tmp_path / "tokens", "tokens", {"dtype": "uint16", "vocabulary": tokenizer.vocabulary}) as folder:
        for side in ("train", "heldout"):
            (folder / f"{side}.bin").write_bytes(flat.tobytes())
            np.save(folder / f"{side}.offsets.npy", np.array([0, len(flat)], dtype="<i8"))
        tokenizer.save(folder)
    save(model, tokenizer, tmp_path / "base")
    return {"checkpoint": tmp_path / "base", "tokens": tmp_path / "tokens"}


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., tuple[Task, Watch]]:
    def make(name: str = "out", **more: object) -> tuple[Task, Watch]:
        hardware = Hardware("test", "cpu", {"fp32": 1e11, "bf16": 1e11}, 1e10, 1e9, 10.0, 0.1)
        notes: list[str] = []
        made = Task(tmp_path / name, tmp_path / f"{name}.scratch", hardware, **more), Watch(Meter(hardware), notes.append)
        made[0].scratch.mkdir()
        return made

    return make
