"""Our own form, for shapes that no Hugging Face family can express: `model_type: shoestring`, our configuration and our
tensor names as they are. Other programs don't open it.
"""

from __future__ import annotations

from typing import Any

from shoestring.architecture import ModelConfig
from shoestring.model.checkpoint.families.family import Family, Reading


def read_config(reading: Reading) -> ModelConfig:
    """The configuration that `write_config` wrote.

    Raises:
        FileError: the entry is missing or holds other settings than this version's.
    """
    reading.need("shoestring")
    return reading.fill(**reading.inside("shoestring").record)


def write_config(config: ModelConfig) -> dict[str, Any]:
    """Our configuration under one key, and a word to whoever opens the file."""
    return {
        "architectures": ["ShoestringForCausalLM"],
        "model_type": "shoestring",
        "note": "no Hugging Face family has this shape; only shoestring opens this checkpoint",
        "shoestring": config.model_dump(mode="json"),
    }


FAMILY = Family(("ShoestringForCausalLM",), read_config, write_config, outer=(), inner=())
