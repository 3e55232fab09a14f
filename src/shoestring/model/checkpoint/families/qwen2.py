"""Qwen2 and Qwen2.5: Llama's layout with a bias on queries, keys and values."""

from __future__ import annotations

from typing import Any

from shoestring.architecture import ModelConfig
from shoestring.model.checkpoint.families import llama
from shoestring.model.checkpoint.families.family import Family, Reading


def read_config(reading: Reading) -> ModelConfig:
    """Our configuration of a Qwen2ForCausalLM.

    Raises:
        FileError: a sliding window in use, another activation or rope scaling.
    """
    reading.only("use_sliding_window", False)
    return llama.shape(reading, attention_bias=True)


def write_config(config: ModelConfig) -> dict[str, Any] | None:
    """The family's part; head sizes other than width / heads are not Qwen2's."""
    flat = config.flat
    if flat is None or flat.width != flat.heads * flat.head_size:
        return None
    return {**llama.written(flat, "Qwen2ForCausalLM", "qwen2"), "use_sliding_window": False}


FAMILY = Family(("Qwen2ForCausalLM",), read_config, write_config, llama.OUTER, llama.INNER)
