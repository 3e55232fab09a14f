"""GPT-2's shape: learned positions, LayerNorm, exact GELU. Ours has no biases: they are written as zeros, and a checkpoint
whose biases are not zero is refused.

transformers stores these matrices transposed, (inputs, outputs), and queries, keys and values in one.
"""

from __future__ import annotations

from typing import Any

from shoestring.architecture import ModelConfig
from shoestring.architecture.settings import LAYERS
from shoestring.model.checkpoint.families.family import Family, Reading, entry


def read_config(reading: Reading) -> ModelConfig:
    """Our configuration of a GPT2LMHeadModel.

    Raises:
        FileError: GELU's tanh approximation (OpenAI's own checkpoints), or attention scaled in another way.
    """
    reading.only("activation_function", "gelu", otherwise="gelu_new")
    reading.only("scale_attn_weights", True)
    reading.only("scale_attn_by_inverse_layer_idx", False)
    reading.only("add_cross_attention", False)
    width = reading.count("n_embd")
    return reading.fill(
        vocabulary=reading.count("vocab_size"),
        width=width,
        layers=reading.count("n_layer", most=LAYERS),
        heads=reading.count("n_head"),
        feed_forward_width=reading.count("n_inner", 4 * width),
        context=reading.count("n_positions"),
        norm_epsilon=reading.number("layer_norm_epsilon", 1e-5),
        tied=reading.flag("tie_word_embeddings", True),
        position="learned",
        feed_forward="gelu",
        norm="layernorm",
    )


def write_config(config: ModelConfig) -> dict[str, Any] | None:
    """The family's part of `config.json`: plain heads."""
    flat = config.flat
    if flat is None or flat.heads * flat.head_size != flat.width:
        return None
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": flat.vocabulary,
        "n_embd": flat.width,
        "n_layer": flat.layers,
        "n_head": flat.heads,
        "n_inner": flat.feed_forward_width,
        "n_positions": flat.context,
        "layer_norm_epsilon": flat.norm_epsilon,
        "activation_function": "gelu",
        "scale_attn_weights": True,
        "tie_word_embeddings": flat.tied,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


FAMILY = Family(
    ("GPT2LMHeadModel",),
    read_config,
    write_config,
    outer=(
        entry("embedding", "transformer.wte"),
        entry("positions", "transformer.wpe"),
        entry("final_norm", "transformer.ln_f"),
        entry("head", "lm_head"),
    ),
    inner=(
        entry("mixer_norm", "ln_1"),
        entry("mixer.query, mixer.key, mixer.value", "attn.c_attn", transposed=True),
        entry("mixer.output", "attn.c_proj", transposed=True),
        entry("feed_forward_norm", "ln_2"),
        entry("feed_forward.up", "mlp.c_fc", transposed=True),
        entry("feed_forward.down", "mlp.c_proj", transposed=True),
    ),
    layer="transformer.h.{}",
    packs=False,
    zero_biases=True,
    prefix="transformer.",
    unused=(".attn.bias", ".attn.masked_bias"),
)
