"""What compressing costs, before it is done: time, operations, memory, and the size of what comes out.

    walk     one pass of the calibration tokens through the blocks (about two when they go in chunks)
             + the Gram matrices, half of 2 N I^2 for each distinct input
             + for GPTQ: columns in turn (`column_flops`), and a fixed time for each column
    weights  passes over the weights

Operations are assumed to reach a share of this machine's rate of matrix products.
Quality is not predicted: no rule says what a given model loses.

O outputs, I inputs, N calibration tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.architecture import Layer, ModelConfig
from shoestring.architecture import cost as checkpoint
from shoestring.architecture.cost import checkpoint_counts
from shoestring.architecture.counts import (
    forward_flops,
    gram_widths,
    linear_parameters,
    matrices,
    over_layers,
    parameters,
    training_flops,
    weight_bytes,
    widest,
)
from shoestring.measure import Hardware, Usage
from shoestring.measure.counts import Units, products, seconds, times, usage
from shoestring.technique import Prediction, Sketch
from shoestring.train import cost as training
from shoestring.train.precision import Precision

SCALE_BITS = 16
"""Scales are stored in bfloat16."""
ASSUMED: Units = {
    **training.ASSUMED,
    **checkpoint.ASSUMED,
    # The blocks' pass, with attention, norms and casts in its time. These and what follows: measured on one AVX-512 core with
    # SmolLM2-135M's shapes.
    "compress.bf16.walk": products("bf16", 0.55),
    "compress.fp32.walk": products("fp32", 0.8),
    "compress.grams": products("fp32", 0.85),
    "compress.solver": products("fp32"),
    # A column of GPTQ's loop beside its multiply-adds: half a dozen small operations.
    "compress.columns": 30e-6,
    "compress.block": 1 / 3.2e10,
    "compress.weights": 1 / 2e9,
}
"""Seconds of a training step's terms; of handling checkpoints; of an operation of the walk, of Gram matrices (the half that
symmetry saves counted out) and of a solver; of a column; of a byte of the rest of a block that a column moves, and of float32
weights that a pass of rounding or scoring goes through.
"""
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
    if config is None:
        return _unknown(sketch, hardware, bits, sparsity)
    length = length or min(512, config.context)
    passed, whole = walk_flops(config, samples, length, gram=False), walk_flops(config, samples, length, gram)
    dtypes = ("bf16", "fp32") if precision == "auto" else (precision,)
    walk = min(({f"compress.{dtype}.walk": passed} for dtype in dtypes), key=lambda counts: seconds(counts, ASSUMED, hardware))
    solver = solver_flops(config, grids)
    counts = {
        **walk,
        "compress.grams": whole - passed,
        "compress.solver": solver,
        **_columns(config, grids),
        "compress.weights": passes * 4.0 * linear_parameters(config),
        **checkpoint_counts(config, written=1),
    }
    held = samples * length * 4.0 * (6 * config.width + 4 * widest(config))
    kept = 4.0 * parameters(config) + held + 12.0 * widest(config) ** 2
    used = usage(counts, kept, hardware, ASSUMED, flops=whole + solver, method="one pass of calibration, Gram matrices, solver")
    return Prediction(used, _after(sketch, config, bits, sparsity))


def predict_weights(sketch: Sketch, hardware: Hardware, bits: Bits | None, sparsity: float, passes: float) -> Prediction:
    """What a technique that only looks at weights will use, and the sketch after it."""
    config = sketch.model
    if config is None:
        return _unknown(sketch, hardware, bits, sparsity)
    weights = linear_parameters(config)
    counts = {"compress.weights": passes * 4.0 * weights, **checkpoint_counts(config, written=1)}
    kept = 4.0 * parameters(config) + (weights if bits else 0.0)
    used = usage(counts, kept, hardware, ASSUMED, flops=passes * 2.0 * weights, method="passes over the weights")
    return Prediction(used, _after(sketch, config, bits, sparsity))


def _columns(config: ModelConfig, grids: int) -> dict[str, float]:
    """GPTQ's loop beside its products: for each column, O x block/2 floats are read and written. Matrices of one input, and the
    grids of each, are rounded together.
    """
    if not grids:
        return {}
    columns = over_layers(config, lambda layer: sum(gram_widths(layer, config.width)))
    return {"compress.columns": float(columns), "compress.block": grids * linear_parameters(config) * 64 * 8.0}


def _after(sketch: Sketch, config: ModelConfig, bits: Bits | None, sparsity: float) -> Sketch:
    if bits is None:
        return sketch.with_(sparsity=sparsity, bits_per_byte=None)
    stored = bits.per_weight(config)
    return sketch.with_(
        sparsity=sparsity, bits_per_weight=stored, disk_bytes=weight_bytes(config, stored, SCALE_BITS), bits_per_byte=None
    )


def _unknown(sketch: Sketch, hardware: Hardware, bits: Bits | None, sparsity: float) -> Prediction:
    """No model is known yet: nothing can be said of the cost, something of the outcome."""
    known = {"sparsity": sparsity, "bits_per_byte": None}
    if bits is not None:
        known["bits_per_weight"] = float(bits.bits)
    used = usage({}, None, hardware, ASSUMED, flops=None, method="the model is not known yet")
    return Prediction(used, sketch.with_(**known))


def distil_usage(config: ModelConfig, steps: int, batch: int, length: int, precision: Precision, hardware: Hardware) -> Usage:
    """What distillation from a teacher of the student's size uses: training, a third more for the teacher's forward pass, its
    weights, and a chunk of both models' logits.
    """
    logits = DISTIL_LOGITS * 4.0 * min(DISTIL_CHUNK, batch * length) * config.vocabulary
    trained = training.training_memory(config, training.portion(batch, None, hardware), length, precision, hardware.device)
    tokens = float(steps) * batch * length
    return usage(
        times(training.step_counts(config, batch, length, precision, hardware), steps * DISTIL_FACTOR),
        trained + 4.0 * parameters(config) + logits,
        hardware,
        ASSUMED,
        flops=training_flops(config, tokens, length) * 4 / 3,
        communication=steps * training.exchanged_bytes(config, hardware.count),
        method=f"{DISTIL_FACTOR:g} training steps each, {precision}",
    )
