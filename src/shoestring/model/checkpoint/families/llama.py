"""Llama and what shares its shape: Llama 1 to 3, SmolLM2, TinyLlama, Mistral without a sliding window.

The other families of the same layout (Qwen2, Qwen3) take their functions from here.
"""

from __future__ import annotations

from typing import Any

from shoestring.architecture import Flat, ModelConfig
from shoestring.architecture.settings import LAYERS
from shoestring.errors import FileError
from shoestring.model.checkpoint.families.family import Family, Reading, entry, write_rope


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


def written(flat: Flat, architecture: str, kind: str) -> dict[str, Any]:
    """The part of `config.json` that all families of this layout share."""
    return {
        "architectures": [architecture],
        "model_type": kind,
        "vocab_size": flat.vocabulary,
        "hidden_size": flat.width,
        "num_hidden_layers": flat.layers,
        "num_attention_heads": flat.heads,
        "num_key_value_heads": flat.kv_heads,
        "head_dim": flat.head_size,
        "intermediate_size": flat.feed_forward_width,
        "max_position_embeddings": flat.context,
        "rms_norm_eps": flat.norm_epsilon,
        "hidden_act": "silu",
        "tie_word_embeddings": flat.tied,
        **write_rope(flat),
    }


def write_config(config: ModelConfig) -> dict[str, Any] | None:
    """The family's part; transformers refuses a Llama whose heads don't divide its width."""
    flat = config.flat
    return None if flat is None or flat.width % flat.heads else written(flat, "LlamaForCausalLM", "llama")


OUTER = (entry("embedding", "model.embed_tokens"), entry("final_norm", "model.norm"), entry("head", "lm_head"))
INNER = (
    entry("mixer_norm", "input_layernorm"),
    entry("mixer.query", "self_attn.q_proj"),
    entry("mixer.key", "self_attn.k_proj"),
    entry("mixer.value", "self_attn.v_proj"),
    entry("mixer.query_norm", "self_attn.q_norm"),
    entry("mixer.key_norm", "self_attn.k_norm"),
    entry("mixer.output", "self_attn.o_proj"),
    entry("feed_forward_norm", "post_attention_layernorm"),
    entry("feed_forward.gate", "mlp.gate_proj"),
    entry("feed_forward.up", "mlp.up_proj"),
    entry("feed_forward.down", "mlp.down_proj"),
)

FAMILY = Family(("LlamaForCausalLM", "MistralForCausalLM"), read_config, write_config, OUTER, INNER)
