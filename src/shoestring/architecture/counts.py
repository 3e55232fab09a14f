"""What a model is in numbers, from its configuration alone: parameters, operations, bytes.

FLOPs count a multiply-add as two; attention's scores count the causal half (the tokens that are really seen), as does
PaLM's MFU halved (arXiv 2204.02311, appendix B, counts the full square). Training costs three forwards.
"""

from __future__ import annotations

from collections.abc import Callable

from shoestring.architecture.config import ModelConfig
from shoestring.architecture.layer import Layer
from shoestring.architecture.slot import Slot


def over_layers(config: ModelConfig, figure: Callable[[Layer], float]) -> float:
    """The sum of a figure of each layer; equal layers are asked once."""
    return sum(count * figure(layer) for layer, count in config.distinct)


def matrices(layer: Layer, width: int) -> list[Slot]:
    """The matrices of a block, in order of computation."""
    return [slot for slot in layer.slots(width) if slot.reads]


def gram_widths(layer: Layer, width: int) -> list[int]:
    """Widths of a block's distinct inputs: one Gram matrix each."""
    return list({slot.reads: slot.inputs for slot in matrices(layer, width)}.values())


def linear_parameters(config: ModelConfig) -> int:
    """Weights in the blocks' matrices: what pruning and quantization work on."""
    return int(over_layers(config, lambda layer: sum(slot.size for slot in matrices(layer, config.width))))


def parameters(config: ModelConfig) -> int:
    """All weights, a tied head counted once."""
    inner = over_layers(config, lambda layer: sum(slot.numbers for slot in layer.slots(config.width)))
    return int(inner) + sum(slot.numbers for slot in config.outer)


def active_parameters(config: ModelConfig) -> float:
    """Weights of the blocks' matrices that one token passes through: fewer than all where experts share the work."""
    return over_layers(config, lambda layer: sum(slot.active * slot.size for slot in matrices(layer, config.width)))


def token_flops(config: ModelConfig, seen: float) -> float:
    """Operations of one token that sees so many, head included."""
    return 2 * (active_parameters(config) + config.vocabulary * config.width) + mixing_flops(config, seen)


def mixing_flops(config: ModelConfig, seen: float) -> float:
    """Those of them that are no products with weights: scores and their sums, scans."""
    return over_layers(config, lambda layer: sum(part.flops(config.width, seen) for part in layer.parts.values()))


def forward_flops(config: ModelConfig, tokens: float, context: float | None = None) -> float:
    """Operations to read `tokens` tokens in sequences of `context` (the model's own when not given), head included."""
    length = config.context if context is None else context
    return tokens * token_flops(config, (length + 1) / 2)


def training_flops(config: ModelConfig, tokens: float, context: float | None = None) -> float:
    """Operations to learn from `tokens` tokens: forward, and backward at twice that."""
    return 3 * forward_flops(config, tokens, context)


def decode_flops(config: ModelConfig, position: float) -> float:
    """Operations to make one token after `position` others."""
    return token_flops(config, position + 1)


def cache_bytes_per_token(config: ModelConfig, bytes_per_element: float = 2) -> float:
    """What all layers keep of one token while decoding: keys and values."""
    return bytes_per_element * over_layers(config, lambda layer: layer.mixer.state(config.width).per_token)


def state_bytes_per_row(config: ModelConfig, bytes_per_element: float = 2) -> float:
    """What all layers keep of one sequence whatever its length: recurrent states."""
    return bytes_per_element * over_layers(config, lambda layer: layer.mixer.state(config.width).per_row)


def weight_bytes(config: ModelConfig, bits_per_weight: float = 16, other_bits: float = 16) -> float:
    """Bytes of the weights, the blocks' matrices at `bits_per_weight` and the rest (embedding, head, norms) at `other_bits`."""
    inner = linear_parameters(config)
    return inner * bits_per_weight / 8 + (parameters(config) - inner) * other_bits / 8


def checkpoint_bytes(config: ModelConfig, bits_per_weight: float = 16, other_bits: float = 16) -> float:
    """Bytes of a checkpoint on disk: its weights, about 120 bytes of safetensors header a tensor, and the tokenizer (about
    32 bytes an entry: its text, its id and its merge).
    """
    inner = over_layers(config, lambda layer: sum(1 + slot.bias for slot in layer.slots(config.width)))
    tensors = inner + len(config.outer)
    return weight_bytes(config, bits_per_weight, other_bits) + 120 * tensors + 32 * config.vocabulary


def elements(config: ModelConfig) -> float:
    """Numbers of one token that go through element-wise operators in all layers."""
    return over_layers(config, lambda layer: sum(part.elements(config.width) for part in layer.parts.values()))


def saved_bytes(config: ModelConfig, halved: bool) -> float:
    """Bytes that all layers save of one token for the backward pass, products in 16 bits when `halved`."""
    return over_layers(config, lambda layer: sum(part.saved_bytes(config.width, halved) for part in layer.parts.values()))


def widest(config: ModelConfig) -> int:
    """Inputs of the widest matrix of the blocks."""
    return max(max(gram_widths(layer, config.width)) for layer, _ in config.distinct)


def passing(config: ModelConfig) -> int:
    """Numbers that one token is while it goes through a block, the most of any: the stream and its norm, what a mixer makes of
    it, and the feed-forward's neurons.
    """
    mixed = [
        sum(slot.outputs for slot in matrices(layer, config.width) if slot.reads == "mixer.input") for layer, _ in config.distinct
    ]
    return 4 * widest(config) + 4 * config.width + max(mixed)
