"""What a model costs, from its configuration alone.

FLOPs count a multiply-add as two; attention's scores count the causal half (the tokens that are really seen), as does
PaLM's MFU halved (arXiv 2204.02311, appendix B, counts the full square). Training costs three forwards.
"""

from __future__ import annotations

from shoestring.model.config import ModelConfig


def linear_parameters(config: ModelConfig) -> int:
    """Weights in the blocks' matrices: what pruning and quantization work on."""
    heads = config.width * config.head_size * (2 * config.heads + 2 * config.kv_heads)
    matrices = 3 if config.feed_forward == "swiglu" else 2
    return config.layers * (heads + matrices * config.width * config.feed_forward_width)


def parameters(config: ModelConfig) -> int:
    """All weights, a tied head counted once."""
    embeddings = config.vocabulary * config.width * (1 if config.tied else 2)
    positions = config.context * config.width if config.position == "learned" else 0
    per_layer = 2 * config.width
    if config.attention_bias:
        per_layer += config.head_size * (config.heads + 2 * config.kv_heads)
    if config.head_norm:
        per_layer += 2 * config.head_size
    return embeddings + positions + linear_parameters(config) + config.layers * per_layer + config.width


def forward_flops(config: ModelConfig, tokens: float, context: float | None = None) -> float:
    """Operations to read `tokens` tokens in sequences of `context` (the model's own when not given), head included."""
    length = config.context if context is None else context
    matrices = 2 * (linear_parameters(config) + config.vocabulary * config.width)
    attention = config.layers * 2 * 2 * config.heads * config.head_size * (length + 1) / 2
    return tokens * (matrices + attention)


def training_flops(config: ModelConfig, tokens: float, context: float | None = None) -> float:
    """Operations to learn from `tokens` tokens: forward, and backward at twice that."""
    return 3 * forward_flops(config, tokens, context)


def decode_flops(config: ModelConfig, position: float) -> float:
    """Operations to make one token after `position` others."""
    matrices = 2 * (linear_parameters(config) + config.vocabulary * config.width)
    return matrices + config.layers * 2 * 2 * config.heads * config.head_size * (position + 1)


def cache_bytes_per_token(config: ModelConfig, bytes_per_element: float = 2) -> float:
    """Keys and values of one token in all layers."""
    return 2 * config.layers * config.kv_heads * config.head_size * bytes_per_element


def weight_bytes(config: ModelConfig, bits_per_weight: float = 16, other_bits: float = 16) -> float:
    """Bytes of the weights, the blocks' matrices at `bits_per_weight` and the rest (embedding, head, norms) at `other_bits`."""
    inner = linear_parameters(config)
    return inner * bits_per_weight / 8 + (parameters(config) - inner) * other_bits / 8


def checkpoint_bytes(config: ModelConfig, bits_per_weight: float = 16, other_bits: float = 16) -> float:
    """Bytes of a checkpoint on disk: its weights, about 120 bytes of safetensors header a tensor, and the tokenizer (about
    32 bytes an entry: its text, its id and its merge).
    """
    tensors = 3 + config.layers * (9 + (3 if config.attention_bias else 0) + (2 if config.head_norm else 0))
    return weight_bytes(config, bits_per_weight, other_bits) + 120 * tensors + 32 * config.vocabulary


def activation_bytes(config: ModelConfig, batch: int, context: int, bytes_per_element: float = 4) -> float:
    """Bytes held for the backward pass of one micro-batch without recomputation, attention fused (no T x T matrix kept)."""
    per_token = 4 * config.width + 2 * config.head_size * (config.heads + config.kv_heads)
    per_token += (4 if config.feed_forward == "swiglu" else 2) * config.feed_forward_width
    logits = 2 * config.vocabulary
    return batch * context * (config.layers * per_token + logits) * bytes_per_element
