"""What handling a checkpoint takes, whatever a step does with the model: opening it, reading it, writing another."""

from __future__ import annotations

from shoestring.architecture.config import ModelConfig
from shoestring.architecture.counts import parameters
from shoestring.measure.counts import Units

ASSUMED: Units = {"checkpoint.starts": 0.3, "checkpoint.read": 1 / 4e8, "checkpoint.written": 1 / 0.6e9}
"""Seconds to open a checkpoint with its tokenizer and to write what a step has made; of a byte that is read and built; of a
byte that is written with its checksum. Weights count as float32.
"""


def checkpoint_counts(config: ModelConfig, read: int = 1, written: int = 0) -> dict[str, float]:
    """Work of a step that opens so many checkpoints of this shape and writes so many."""
    size = 4.0 * parameters(config)
    return {"checkpoint.starts": 1.0, "checkpoint.read": read * size, "checkpoint.written": written * size}
