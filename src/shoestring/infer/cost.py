"""What answering takes, by the roofline: operations or bytes moved, whichever takes longer, and the start of each layer.

    prefill = max(flops / rate, weight bytes / bandwidth) + layers * overhead
    step    = max(flops / rate, (weight bytes + cache bytes read) / bandwidth) + layers * overhead

Roofline: Williams and others, 2009; for decoding, arXiv 2211.05102 section 2. A step reads every weight once whatever the
batch, so rows share that cost until their operations take longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.architecture import ModelConfig
from shoestring.architecture import cost as checkpoint
from shoestring.architecture.counts import cache_bytes_per_token, decode_flops, forward_flops, weight_bytes
from shoestring.measure import Hardware
from shoestring.measure.counts import Units, products, seconds, times

ASSUMED: Units = {
    **checkpoint.ASSUMED,
    "infer.fp32.matrices": products("fp32"),
    "infer.bf16.matrices": products("bf16"),
    "infer.moved": lambda hardware: 1 / (0.65 * hardware.bandwidth),
    "infer.layers": lambda hardware: 2e-4 if hardware.device == "cpu" else 2.5e-4,
    "infer.steps": lambda hardware: 1e-3 if hardware.device == "cpu" else 5e-4,
    "infer.drawn": lambda hardware: 1e-7 if hardware.device == "cpu" else 1e-9,
}
"""Seconds of an operation, of a byte that a matrix-vector product reads, for a layer's operators to start, of a step outside the
layers, and of a logit among which a token is drawn (a greedy choice draws none).
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """Bits of what a pass reads: the blocks' matrices, all other weights, and the cache."""

    weight: float = 32
    other: float = 32
    cache: float = 32
    compute: str = "fp32"
    """The dtype whose matrix rate counts."""


FP32 = Stored()


def weight_traffic(config: ModelConfig, stored: Stored = FP32) -> float:
    """Bytes of weights that one pass reads: the blocks, the norms and the head; of the embedding only a few rows."""
    unread = 0 if config.tied else config.vocabulary * config.width
    return weight_bytes(config, stored.weight, stored.other) - unread * stored.other / 8


def cache_bytes(config: ModelConfig, rows: int, tokens: float, stored: Stored = FP32) -> float:
    """Bytes of keys and values of `rows` answers of `tokens` tokens, prompt included."""
    return rows * tokens * cache_bytes_per_token(config, stored.cache / 8)


def prefill_counts(config: ModelConfig, rows: int, tokens: float, hardware: Hardware, stored: Stored = FP32) -> dict[str, float]:
    """Work to read `rows` prompts of `tokens` tokens each, to the first token of each."""
    return _roof(prefill_flops(config, rows, tokens), weight_traffic(config, stored), config, hardware, stored)


def prefill_flops(config: ModelConfig, rows: int, tokens: float) -> float:
    """Operations of that. The head sees the last token of each prompt only."""
    spared = 2 * config.vocabulary * config.width * (tokens - 1)
    return rows * (forward_flops(config, tokens, tokens) - spared)


def step_counts(config: ModelConfig, rows: int, position: float, hardware: Hardware, stored: Stored = FP32) -> dict[str, float]:
    """Work to give each of `rows` answers one token after `position` others."""
    moved = weight_traffic(config, stored) + cache_bytes(config, rows, position, stored)
    return _roof(rows * decode_flops(config, position), moved, config, hardware, stored)


def decode_counts(
    config: ModelConfig, rows: int, prompt: float, tokens: float, hardware: Hardware, stored: Stored = FP32
) -> dict[str, float]:
    """Work of `tokens` steps after a prompt: the middle step's, so many times (a step's is linear in its position)."""
    return times(step_counts(config, rows, prompt + (tokens - 1) / 2, hardware, stored), tokens)


def decode_total_flops(config: ModelConfig, rows: int, prompt: float, tokens: float) -> float:
    """Operations of that."""
    return rows * tokens * decode_flops(config, prompt + (tokens - 1) / 2)


def answer_memory(config: ModelConfig, rows: int, tokens: float, stored: Stored = FP32) -> float:
    """Bytes held while `rows` answers of `tokens` tokens, prompt included, are made: weights, cache, a step's logits."""
    weights = weight_bytes(config, stored.weight, stored.other)
    return weights + cache_bytes(config, rows, tokens, stored) + rows * config.vocabulary * 8


def _roof(flops: float, moved: float, config: ModelConfig, hardware: Hardware, stored: Stored) -> dict[str, float]:
    """One pass: of operations and bytes, which overlap, those that take longer."""
    overlapping = ({f"infer.{stored.compute}.matrices": flops}, {"infer.moved": moved})
    longer = max(overlapping, key=lambda counts: seconds(counts, ASSUMED, hardware))
    return {**longer, "infer.layers": float(len(config.layers)), "infer.steps": 1.0}
