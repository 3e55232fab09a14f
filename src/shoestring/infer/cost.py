"""What answering costs, by the roofline: the longer of moving the bytes and doing the operations, and a fixed part per layer.

    prefill = max(flops / rate, weight bytes / bandwidth) + layers * overhead
    step    = max(flops / rate, (weight bytes + cache bytes read) / bandwidth) + layers * overhead

Roofline: Williams and others, 2009; for decoding, arXiv 2211.05102 section 2. A step reads every weight once whatever the
batch, so rows share that cost until their operations take longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import cache_bytes_per_token, decode_flops, forward_flops, linear_parameters, parameters
from shoestring.measure import Hardware

LAYER_OVERHEAD = {"cpu": 2e-4, "cuda": 2.5e-4}
"""Assumed seconds a layer's operators take to start, until the calibrated figure `infer.layer` is there."""
BANDWIDTH_SHARE = 0.65
"""Share of the bandwidth that a matrix-vector product reaches, until `infer.read` (bytes/s) is calibrated."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Bits of what a pass reads: the blocks' matrices, all other weights, and the cache."""

    weight: float = 32
    other: float = 32
    cache: float = 32
    compute: str = "fp32"
    """The dtype whose matrix rate counts."""


FP32 = Precision()


def weight_traffic(config: ModelConfig, precision: Precision = FP32) -> float:
    """Bytes of weights that one pass reads: the blocks, the norms and the head; of the embedding only a few rows."""
    inner = linear_parameters(config)
    copies = 1 if config.tied else 2
    others = parameters(config) - inner - (copies - 1) * config.vocabulary * config.width
    return inner * precision.weight / 8 + others * precision.other / 8


def cache_bytes(config: ModelConfig, rows: int, tokens: float, precision: Precision = FP32) -> float:
    """Bytes of keys and values of `rows` answers of `tokens` tokens, prompt included."""
    return rows * tokens * cache_bytes_per_token(config, precision.cache / 8)


def prefill_seconds(config: ModelConfig, rows: int, tokens: float, hardware: Hardware, precision: Precision = FP32) -> float:
    """Time to read `rows` prompts of `tokens` tokens each, to the first token of each."""
    return _roof(prefill_flops(config, rows, tokens), weight_traffic(config, precision), config, hardware, precision)


def prefill_flops(config: ModelConfig, rows: int, tokens: float) -> float:
    """Operations of that. The head sees the last token of each prompt only."""
    spared = 2 * config.vocabulary * config.width * (tokens - 1)
    return rows * (forward_flops(config, tokens, tokens) - spared)


def step_seconds(config: ModelConfig, rows: int, position: float, hardware: Hardware, precision: Precision = FP32) -> float:
    """Time to give each of `rows` answers one token after `position` others."""
    moved = weight_traffic(config, precision) + cache_bytes(config, rows, position, precision)
    return _roof(rows * decode_flops(config, position), moved, config, hardware, precision)


def decode_seconds(
    config: ModelConfig, rows: int, prompt: float, tokens: float, hardware: Hardware, precision: Precision = FP32
) -> float:
    """Time for `tokens` steps after a prompt: the middle step's, so many times (a step's cost is linear in its position)."""
    return tokens * step_seconds(config, rows, prompt + (tokens - 1) / 2, hardware, precision)


def decode_total_flops(config: ModelConfig, rows: int, prompt: float, tokens: float) -> float:
    """Operations of that."""
    return rows * tokens * decode_flops(config, prompt + (tokens - 1) / 2)


def answer_memory(config: ModelConfig, rows: int, tokens: float, precision: Precision = FP32) -> float:
    """Bytes held while `rows` answers of `tokens` tokens, prompt included, are made: weights, cache, a step's logits."""
    inner = linear_parameters(config)
    weights = inner * precision.weight / 8 + (parameters(config) - inner) * precision.other / 8
    return weights + cache_bytes(config, rows, tokens, precision) + rows * config.vocabulary * 8


def _roof(flops: float, moved: float, config: ModelConfig, hardware: Hardware, precision: Precision) -> float:
    bandwidth = hardware.figure("infer.read", BANDWIDTH_SHARE * hardware.bandwidth)
    overhead = hardware.figure("infer.layer", LAYER_OVERHEAD.get(hardware.device, LAYER_OVERHEAD["cuda"]))
    return max(flops / hardware.rate(precision.compute), moved / bandwidth) + len(config.layers) * overhead
