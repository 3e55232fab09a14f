"""What compressing costs, before it is done: time, operations, memory, and the size of what comes out.

    walk     one pass of the calibration tokens through the blocks (about two when they go in chunks)
             + the Gram matrices, half of 2 N I^2 for each distinct input
             + for GPTQ: columns in turn (`column_flops`), and a fixed time for each column
    weights  passes over the weights

Rates are shares of this machine's matrix products; `figure("compress....")` replaces them where a calibration has measured them.
Quality is not predicted: no rule says what a given model loses.

O outputs, I inputs, N calibration tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.architecture import Layer, ModelConfig
from shoestring.architecture.counts import (
    forward_flops,
    gram_widths,
    linear_parameters,
    matrices,
    over_layers,
    parameters,
    widest,
)
from shoestring.measure import Hardware, Usage, predicted, predicted_usage
from shoestring.technique import Prediction, Sketch

SCALE_BITS = 16
"""Scales are stored in bfloat16."""
WALK_SHARE = {"bf16": 0.55, "fp32": 0.8}
"""Share of the machine's rate of products that the blocks' pass reaches, attention, norms and casts counted in its time. This and
the figures below: measured on one AVX-512 core with SmolLM2-135M's shapes."""
GRAM_SHARE = 0.85
"""The same of Gram matrices, in fp32, the half that symmetry saves counted out."""
COLUMN_SECONDS = 30e-6
"""Seconds for a column of GPTQ's loop beside its multiply-adds: half a dozen small operations."""
COLUMN_BYTES_PER_SECOND = 3.2e10
"""At which the loop moves the rest of a block: O x block/2 floats are read and written for each column."""
WEIGHT_BYTES_PER_SECOND = 2e9
"""Of float32 weights that one pass of rounding or scoring goes through."""
SEARCH_PASSES = 35.0
"""Passes over the weights that a search for scales takes."""
SCORE_PASSES = 8.0
"""Passes over the weights that finding the lowest scores takes."""
DISTIL_FACTOR = 1.33
"""Time of a distillation step over that of a training step: the teacher's forward pass. Measured 1.31 (width 256)."""
DISTIL_CHUNK = 1024
"""Tokens whose logits, the student's and the teacher's, exist at one time."""
DISTIL_LOGITS = 6
"""Copies of a chunk's logits that a distillation step holds, float32."""
LOADING_BYTES_PER_SECOND = 0.6e9
"""Reading a checkpoint, and writing one with its checksum, bytes of float32 weights."""


@dataclass(frozen=True, slots=True)
class Bits:
    """How weights are stored: bits of a code, inputs that share a scale (-1: all), with zero points or not."""

    bits: int
    group_size: int
    symmetric: bool

    def per_weight(self, config: ModelConfig) -> float:
        """Bits stored for a weight, scales and zeros counted in, over the blocks' matrices."""
        extra = SCALE_BITS + (0 if self.symmetric else self.bits)
        stored = 0.0
        for layer, count in config.distinct:
            for slot in matrices(layer, config.width):
                groups = 1 if self.group_size == -1 else slot.inputs / self.group_size
                stored += count * slot.outputs * (slot.inputs * self.bits + groups * extra)
        return stored / linear_parameters(config)


def walk_flops(config: ModelConfig, samples: int, length: int, gram: bool = True) -> float:
    """Operations of the calibration pass through the blocks, and of the Gram matrices."""
    tokens = samples * length
    head = 2.0 * config.vocabulary * config.width * tokens
    products = over_layers(config, lambda layer: sum(float(width) ** 2 for width in gram_widths(layer, config.width))) * tokens
    return forward_flops(config, tokens, length) - head + (products if gram else 0.0)


def column_flops(outputs: int, inputs: int, grids: int) -> float:
    """Operations of GPTQ's loop over the columns of one matrix, once for each grid that is tried, and of its errors.

    Column i moves the I - i - 1 after it: a multiply and an add for each of O outputs, O I (I - 1) over all columns. An error
    D H D^T is a product of 2 O I^2 and a dot product of 2 O I; that of the matrix itself is what the others are divided by.
    """
    loop, error = outputs * inputs * (inputs - 1.0), 2.0 * outputs * inputs * (inputs + 1.0)
    return grids * (loop + error) + error


def solver_flops(config: ModelConfig, grids: int) -> float:
    """Operations of GPTQ's solver for all blocks; none where no grid is tried.

    For each distinct input a Cholesky factorisation (I^3 / 3) and a triangular solve with the identity (I^3), then the columns of
    each matrix.
    """
    if grids == 0:
        return 0.0

    def each(layer: Layer) -> float:
        factors = sum(4 / 3 * width**3 for width in gram_widths(layer, config.width))
        return factors + sum(column_flops(slot.outputs, slot.inputs, grids) for slot in matrices(layer, config.width))

    return over_layers(config, each)


def predict_walk(
    sketch: Sketch,
    hardware: Hardware,
    samples: int,
    length: int | None,
    precision: str,
    bits: Bits | None,
    sparsity: float,
    gram: bool = True,
    grids: int = 0,
    passes: float = 1.0,
) -> Prediction:
    """What a calibrated technique will use, and the sketch after it.

    Args:
        length: of a sequence; 512 or the model's context when None.
        precision: of the walk; "auto" is the one in which this machine multiplies faster.
        bits: of the weights afterwards; None leaves them as they are.
        sparsity: of the weights afterwards.
        grids: how often GPTQ's loop goes through each matrix's columns.
        passes: over the weights, for scales or scores.
    """
    config = sketch.model
    if not isinstance(config, ModelConfig):
        return _unknown(sketch, hardware, bits, sparsity)
    length = length or min(512, config.context)
    passed, whole = walk_flops(config, samples, length, gram=False), walk_flops(config, samples, length, gram)
    rates = {
        dtype: hardware.rate(dtype) * hardware.figure(f"compress.walk_share.{dtype}", WALK_SHARE[dtype]) for dtype in WALK_SHARE
    }
    seconds = passed / (max(rates.values()) if precision == "auto" else rates[precision])
    seconds += (whole - passed) / (hardware.rate("fp32") * hardware.figure("compress.gram_share", GRAM_SHARE))
    flops = whole + solver_flops(config, grids)
    seconds += (flops - whole) / hardware.rate("fp32") + (_column_seconds(config, hardware, grids) if grids else 0.0)
    weights = 4.0 * linear_parameters(config)
    seconds += passes * weights / hardware.figure("compress.weights", WEIGHT_BYTES_PER_SECOND) + _moving(config, hardware)
    held = samples * length * 4.0 * (6 * config.width + 4 * widest(config))
    peak = 4.0 * parameters(config) + held + 12.0 * widest(config) ** 2
    usage = predicted_usage(
        seconds=seconds, hardware=hardware, flops=flops, peak_memory=peak, method="one pass of calibration, Gram matrices, solver"
    )
    return Prediction(usage, _after(sketch, config, bits, sparsity))


def predict_weights(sketch: Sketch, hardware: Hardware, bits: Bits | None, sparsity: float, passes: float) -> Prediction:
    """What a technique that only looks at weights will use, and the sketch after it."""
    config = sketch.model
    if not isinstance(config, ModelConfig):
        return _unknown(sketch, hardware, bits, sparsity)
    weights = linear_parameters(config)
    rate = hardware.figure("compress.weights", WEIGHT_BYTES_PER_SECOND)
    seconds = passes * 4.0 * weights / rate + _moving(config, hardware)
    peak = 4.0 * parameters(config) + (weights if bits else 0.0)
    usage = predicted_usage(
        seconds=seconds, hardware=hardware, flops=passes * 2.0 * weights, peak_memory=peak, method="passes over the weights"
    )
    return Prediction(usage, _after(sketch, config, bits, sparsity))


def disk_bytes(config: ModelConfig, bits_per_weight: float, other_bits: float) -> float:
    """Bytes of the weights' file."""
    inner = linear_parameters(config)
    return inner * bits_per_weight / 8 + (parameters(config) - inner) * other_bits / 8


def _column_seconds(config: ModelConfig, hardware: Hardware, grids: int) -> float:
    """Seconds of GPTQ's loop beside its products; matrices of one input, and the grids of each, are rounded together."""
    fixed = hardware.figure("compress.column", COLUMN_SECONDS)
    moved = hardware.figure("compress.column_bytes", COLUMN_BYTES_PER_SECOND)
    columns = over_layers(config, lambda layer: sum(gram_widths(layer, config.width)))
    return fixed * columns + grids * linear_parameters(config) * 64 * 8.0 / moved


def _after(sketch: Sketch, config: ModelConfig, bits: Bits | None, sparsity: float) -> Sketch:
    if bits is None:
        return sketch.with_(sparsity=sparsity, bits_per_byte=None)
    stored = bits.per_weight(config)
    return sketch.with_(
        sparsity=sparsity, bits_per_weight=stored, disk_bytes=disk_bytes(config, stored, SCALE_BITS), bits_per_byte=None
    )


def _unknown(sketch: Sketch, hardware: Hardware, bits: Bits | None, sparsity: float) -> Prediction:
    """No model is known yet: nothing can be said of the cost, something of the outcome."""
    known = {"sparsity": sparsity, "bits_per_byte": None}
    if bits is not None:
        known["bits_per_weight"] = float(bits.bits)
    usage: Usage = predicted_usage(seconds=0.0, hardware=hardware, method="the model is not known yet")
    return Prediction(usage, sketch.with_(**known))


def _moving(config: ModelConfig, hardware: Hardware) -> float:
    """Seconds to read the checkpoint and to write one."""
    return 2 * 4.0 * parameters(config) / hardware.figure("compress.loading", LOADING_BYTES_PER_SECOND)


def distil_usage(config: ModelConfig, steps: int, batch: int, length: int, precision: str, hardware: Hardware) -> Usage:
    """What distillation from a teacher of the student's size uses: training, a third more for the teacher's forward pass, its
    weights, and a chunk of both models' logits.
    """
    from shoestring.train.cost import training_usage

    usage = training_usage(config, steps, batch, length, precision, hardware)  # type: ignore[arg-type]
    more = hardware.figure("compress.distil_factor", DISTIL_FACTOR)
    grown = {key: getattr(usage, key).scaled(more) for key in ("seconds", "energy", "carbon", "money")}
    extra = 4.0 * parameters(config) + DISTIL_LOGITS * 4.0 * min(DISTIL_CHUNK, batch * length) * config.vocabulary
    memory = usage.peak_memory + predicted(extra, "B", usage.peak_memory.method)
    return usage.with_(**grown, flops=usage.flops.scaled(4 / 3), peak_memory=memory)
