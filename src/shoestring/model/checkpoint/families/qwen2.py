"""Qwen2 and Qwen2.5: Llama's layout with a bias on queries, keys and values."""

from __future__ import annotations

from typing import Any

from shoestring.model.checkpoint.families import llama
from shoestring.model.checkpoint.families.family import Family, Reading
from shoestring.model.config import ModelConfig


def read_config(reading: Reading) -> ModelConfig:
    """Our configuration of a Qwen2ForCausalLM.

    Raises:
        FileError: a sliding window in use, another activation or rope scaling.
    """
    reading.only("use_sliding_window", False)
    return llama.shape(reading, attention_bias=True)


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The family's part of `config.json`."""
    return {**llama.write_config(config, "Qwen2ForCausalLM", "qwen2"), "use_sliding_window": False}


def holds(config: ModelConfig, packed: bool) -> bool:
    """Head sizes other than width / heads are not Qwen2's."""
    return (
        llama.common(config)
        and config.attention_bias
        and not config.head_norm
        and config.width == config.heads * config.head_size
    )


FAMILY = Family(("Qwen2ForCausalLM",), read_config, write_config, holds, llama.names)
