"""GPT-2's shape: learned positions, LayerNorm, exact GELU. Ours has no biases: they are written as zeros, and a checkpoint
whose biases are not zero is refused.

transformers stores these matrices transposed, (inputs, outputs), and queries, keys and values in one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from shoestring.errors import FileError
from shoestring.model.checkpoint.families.family import Family, Reading, Tensors
from shoestring.model.config import LAYERS, ModelConfig

TRANSPOSED = ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")


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


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The family's part of `config.json`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocabulary,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.feed_forward_width,
        "n_positions": config.context,
        "layer_norm_epsilon": config.norm_epsilon,
        "activation_function": "gelu",
        "scale_attn_weights": True,
        "tie_word_embeddings": config.tied,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def holds(config: ModelConfig, packed: bool) -> bool:
    """Plain heads and no packed matrices: what transposes them has no packed form."""
    parts = (config.position, config.feed_forward, config.norm) == ("learned", "gelu", "layernorm")
    plain = config.kv_heads == config.heads and config.heads * config.head_size == config.width
    return parts and plain and not (packed or config.attention_bias or config.head_norm) and set(config.mixers) == {"attention"}


def names(config: ModelConfig) -> dict[str, str]:
    """Our module names to theirs, queries, keys and values still apart."""
    found = {
        "embedding": "transformer.wte",
        "positions": "transformer.wpe",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
    }
    inside = {
        "mixer_norm": "ln_1",
        "mixer.query": "attn.c_attn.q",
        "mixer.key": "attn.c_attn.k",
        "mixer.value": "attn.c_attn.v",
        "mixer.output": "attn.c_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }
    for layer in range(config.layers):
        found |= {f"blocks.{layer}.{ours}": f"transformer.h.{layer}.{theirs}" for ours, theirs in inside.items()}
    return found


def read_tensors(tensors: Tensors, config: ModelConfig, file: Path) -> Tensors:
    """Transpose matrices, split queries, keys and values, drop zero biases.

    Raises:
        FileError: names the first bias that is not zero; a tensor that stands there with and without the prefix.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        # Files saved from the bare model lack the prefix.
        if not name.startswith(("transformer.", "lm_head.")):
            name = f"transformer.{name}"
            if name in tensors:
                raise FileError(f"{file}: {name} stands there with and without its prefix; fetch the checkpoint again")
        if name.endswith(".bias"):
            if tensor.count_nonzero():
                raise FileError(
                    f"{file}: {name} is not zero; shoestring's GPT-2 shape has no biases and can't hold this checkpoint"
                )
        elif name.endswith("attn.c_attn.weight"):
            for part, weight in zip("qkv", tensor.T.chunk(3)):
                found[name.removesuffix("weight") + f"{part}.weight"] = weight.contiguous()
        elif name.removesuffix(".weight").endswith(TRANSPOSED):
            found[name] = tensor.T.contiguous()
        else:
            found[name] = tensor
    return found


def write_tensors(tensors: Tensors, config: ModelConfig) -> Tensors:
    """The other way round, with zero biases."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if module.endswith(("c_attn.k", "c_attn.v")):
            continue
        if module.endswith("c_attn.q"):
            module = module.removesuffix(".q")
            tensor = torch.cat([tensors[f"{module}.{part}.weight"] for part in "qkv"]).T
        elif module.endswith(TRANSPOSED):
            tensor = tensor.T
        found[f"{module}.weight"] = tensor.contiguous()
        if module.rpartition(".")[2] not in ("wte", "wpe", "lm_head"):
            found[f"{module}.bias"] = torch.zeros(tensor.shape[-1], dtype=tensor.dtype)
    return found


FAMILY = Family(
    ("GPT2LMHeadModel",),
    read_config,
    write_config,
    holds,
    names,
    read_tensors,
    write_tensors,
    unused=(".attn.bias", ".attn.masked_bias"),
)
