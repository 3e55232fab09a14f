"""Qwen3 (dense): Llama's layout with RMSNorm on each query and key head, and a head size of its own."""

from __future__ import annotations

from typing import Any

from shoestring.architecture import ModelConfig
from shoestring.model.checkpoint.families import llama
from shoestring.model.checkpoint.families.family import Family, Reading


def read_config(reading: Reading) -> ModelConfig:
    """Our configuration of a Qwen3ForCausalLM.

    Raises:
        FileError: biases, a sliding window in use, another activation or rope scaling.
    """
    reading.only("use_sliding_window", False)
    reading.only("attention_bias", False)
    return llama.shape(reading, head_norm=True, head_size=128)


def write_config(config: ModelConfig) -> dict[str, Any] | None:
    """The family's part of `config.json`."""
    own = {"attention_bias": False, "use_sliding_window": False}
    return None if config.flat is None else {**llama.written(config.flat, "Qwen3ForCausalLM", "qwen3"), **own}


FAMILY = Family(("Qwen3ForCausalLM",), read_config, write_config, llama.OUTER, llama.INNER)
