"""Llama and what shares its shape: Llama 1 to 3, SmolLM2, TinyLlama, Mistral without a sliding window.

The other families of the same layout (Qwen2, Qwen3) take their functions from here.
"""

from __future__ import annotations

from typing import Any

from shoestring.errors import FileError
from shoestring.model.checkpoint.families.family import Family, Reading, write_rope
from shoestring.model.config import LAYERS, ModelConfig


def read_config(reading: Reading) -> ModelConfig:
    """Our configuration of a LlamaForCausalLM or MistralForCausalLM.

    Raises:
        FileError: biases, a sliding window shorter than the context, another activation or rope scaling.
    """
    reading.only("attention_bias", False)
    reading.only("mlp_bias", False)
    context = reading.count("max_position_embeddings", 2048)
    window = reading.count("sliding_window", context)
    if window < context:
        raise FileError(f"{reading.file}: sliding_window is {window}, shorter than {context} positions: not supported")
    return shape(reading)


def shape(reading: Reading, head_size: int | None = None, **more: Any) -> ModelConfig:
    """What all families of this layout have in common; `head_size` is the family's when the file gives none."""
    reading.only("hidden_act", "silu")
    reading.only("rope_interleaved", False)
    kinds = reading.get("layer_types", [])
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        reading.refuse("layer_types", kinds, "shoestring reads models with full_attention in all layers only")
    heads, width = reading.count("num_attention_heads"), reading.count("hidden_size")
    return reading.fill(
        vocabulary=reading.count("vocab_size"),
        width=width,
        layers=reading.count("num_hidden_layers", most=LAYERS),
        heads=heads,
        kv_heads=reading.count("num_key_value_heads", heads),
        head_size=reading.count("head_dim", head_size or width // heads),
        feed_forward_width=reading.count("intermediate_size"),
        context=reading.count("max_position_embeddings", 2048),
        norm_epsilon=reading.number("rms_norm_eps", 1e-6),
        tied=reading.flag("tie_word_embeddings", False),
        **reading.rope(),
        **more,
    )


def write_config(config: ModelConfig, architecture: str = "LlamaForCausalLM", kind: str = "llama") -> dict[str, Any]:
    """The part of `config.json` that all families of this layout share."""
    return {
        "architectures": [architecture],
        "model_type": kind,
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.feed_forward_width,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_epsilon,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
        **write_rope(config),
    }


def common(config: ModelConfig) -> bool:
    """Whether a configuration has this layout, biases and head norms apart."""
    parts = (config.position, config.feed_forward, config.norm)
    return parts == ("rope", "swiglu", "rmsnorm") and set(config.mixers) == {"attention"}


def holds(config: ModelConfig, packed: bool) -> bool:
    """transformers refuses a Llama whose heads don't divide its width."""
    return common(config) and not config.attention_bias and not config.head_norm and config.width % config.heads == 0


def names(config: ModelConfig) -> dict[str, str]:
    """Our module names to theirs."""
    found = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}
    inside = {
        "mixer_norm": "input_layernorm",
        "mixer.query": "self_attn.q_proj",
        "mixer.key": "self_attn.k_proj",
        "mixer.value": "self_attn.v_proj",
        "mixer.output": "self_attn.o_proj",
        "mixer.query_norm": "self_attn.q_norm",
        "mixer.key_norm": "self_attn.k_norm",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    }
    for layer in range(config.layers):
        found |= {f"blocks.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in inside.items()}
    return found


FAMILY = Family(("LlamaForCausalLM", "MistralForCausalLM"), read_config, write_config, holds, names)
