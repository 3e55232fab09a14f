"""What training costs: the time of an optimizer step, and the memory it holds, before anything is made.

The terms of a step are those that grow differently with the shape: the blocks' matrix products, the head's, attention's, values
passed through memory by element-wise operators, logits, parameters updated, layers started. `train.probe` measures the
seconds of a unit by timing real steps. Without a calibration: operations over an assumed share of the vendor's peak.

C width, F feed-forward width, L layers, V vocabulary, N tokens of a micro-batch, P parameters.
"""

from __future__ import annotations

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import elements, linear_parameters, mixing_flops, parameters, saved_bytes, training_flops
from shoestring.measure import Hardware, Usage
from shoestring.measure.counts import Units, seconds, times, usage
from shoestring.train.precision import Precision
from shoestring.train.settings import CHUNK, CPU_CHUNK

MFU = 0.40
"""Share of a GPU's dense bf16 peak that training reaches, assumed until calibrated: 0.38-0.46 were measured with nanoGPT,
transformers and modded-nanogpt on an H200 at 124M parameters; 0.38-0.43 are published for Llama 3 (arXiv 2407.21783, table 4)."""
MFU_FP32 = 0.60
"""The same of the fp32 peak: plain units are easier to keep busy. Assumed."""
CPU_SHARE = 0.35
"""Share of a CPU's matrix rate that training reaches, assumed until calibrated: 0.3-0.5 measured on two 2-core machines."""
LOOP_SECONDS = 2e-3
"""Seconds of a step spent outside the model (batch, schedule, log). Assumed; too small to matter in most runs."""
TERMS = ("matrices", "head", "attention", "elements", "logits", "parameters", "layers")
"""The terms of a step in one precision, `train.PRECISION.TERM`: known from a calibration, or not counted."""


def assumed_rate(precision: Precision, hardware: Hardware) -> float:
    """FLOP/s of training on one device that has not been calibrated."""
    if hardware.device == "cpu":
        return CPU_SHARE * hardware.rate(precision, share=1.0)
    if precision == "bf16" and "bf16" in hardware.peak:
        return MFU * hardware.peak["bf16"]
    return MFU_FP32 * hardware.peak["fp32"]


ASSUMED: Units = {
    **{f"train.{precision}.{term}": 0.0 for precision in ("fp32", "bf16") for term in TERMS},
    "train.fp32.operations": lambda hardware: 1 / assumed_rate("fp32", hardware),
    "train.bf16.operations": lambda hardware: 1 / assumed_rate("bf16", hardware),
    "train.sent": lambda hardware: 1 / (hardware.link or 16e9),
    "train.steps": LOOP_SECONDS,
}
"""Seconds of a unit: an operation of any term, a byte that a device sends, a step outside the model."""


def pass_counts(config: ModelConfig, sequences: int, context: int, precision: Precision) -> dict[str, float]:
    """The terms of one forward and backward pass of a micro-batch; `parameters`: of the optimizer step."""
    tokens = float(sequences * context)
    counts = {
        "matrices": 6.0 * linear_parameters(config) * tokens,
        "head": 6.0 * config.vocabulary * config.width * tokens,
        "attention": 3.0 * mixing_flops(config, (context + 1) / 2) * tokens,
        "elements": elements(config) * tokens,
        "logits": float(config.vocabulary) * tokens,
        "parameters": float(parameters(config)),
        "layers": float(len(config.layers)),
    }
    return {f"train.{precision}.{term}": amount for term, amount in counts.items()}


def calibrated(precision: Precision, hardware: Hardware) -> bool:
    """Whether real steps in this precision have been timed on the machine."""
    return f"train.{precision}.matrices" in hardware.reached


def step_counts(
    config: ModelConfig, batch: int, context: int, precision: Precision, hardware: Hardware, micro_batch: int | None = None
) -> dict[str, float]:
    """Work of one optimizer step of `batch` sequences on each device, passed in parts of `micro_batch`.

    Several devices share the sequences; gradients whose exchange the backward pass does not hide are sent besides.
    """
    if calibrated(precision, hardware):
        micro = portion(batch, micro_batch, hardware)
        counts = pass_counts(config, micro, context, precision)
        once = {(updated := f"train.{precision}.parameters"): counts.pop(updated)}
        passes = times(counts, batch / hardware.count / micro)
    else:
        passes = {f"train.{precision}.operations": training_flops(config, batch * context, context) / hardware.count}
        once = {}
    counts = {**passes, **once, "train.steps": 1.0}
    if hardware.count > 1:
        hidden = seconds(passes, ASSUMED, hardware) * 2 / 3 / seconds({"train.sent": 1.0}, ASSUMED, hardware)
        counts["train.sent"] = max(0.0, exchanged_bytes(config, hardware.count) / hardware.count - hidden)
    return counts


def step_seconds(
    config: ModelConfig, batch: int, context: int, precision: Precision, hardware: Hardware, micro_batch: int | None = None
) -> float:
    """Seconds of one optimizer step."""
    return seconds(step_counts(config, batch, context, precision, hardware, micro_batch), ASSUMED, hardware)


def portion(batch: int, micro_batch: int | None, hardware: Hardware) -> int:
    """Sequences of one pass on one device."""
    share = max(1, batch // hardware.count)
    return min(share, micro_batch or share)


def exchanged_bytes(config: ModelConfig, devices: int) -> float:
    """Bytes that all devices together send in one step of data-parallel training: a ring all-reduce of float32 gradients."""
    return 2.0 * (devices - 1) * 4.0 * parameters(config)


def faster_precision(config: ModelConfig, micro_batch: int, context: int, hardware: Hardware) -> Precision:
    """bf16 or fp32, whichever makes the quicker step here. A CPU that was not calibrated keeps to fp32."""
    if hardware.device == "cpu" and not (calibrated("bf16", hardware) and calibrated("fp32", hardware)):
        return "fp32"
    choices: tuple[Precision, ...] = ("fp32", "bf16")  # the first wins a tie: a device without bf16 units
    return min(choices, key=lambda precision: step_seconds(config, micro_batch, context, precision, hardware))


def training_memory(
    config: ModelConfig,
    micro_batch: int,
    context: int,
    precision: Precision,
    device: str = "cpu",
    loss_chunk: int = CHUNK,
    moments: float = 2,
) -> float:
    """Bytes that training itself holds at the worst moment, on one device: what `train.train` does in eager mode.

    Weights and the optimizer's moments stay, in float32 (12 P with AdamW's two). The worst moment is either the end of the
    forward pass (all saved activations, a chunk of logits with its gradient, the head's gradient) or the optimizer step (4 P of
    gradients).
    """
    tokens, P = float(micro_batch * context), parameters(config)
    chunk = min(loss_chunk or tokens, CPU_CHUNK if device == "cpu" else tokens)
    logits = min(tokens, chunk) * config.vocabulary * 8.0
    head = 4.0 * config.vocabulary * config.width
    cast = 2.0 * linear_parameters(config) if precision == "bf16" else 0.0
    saved = saved_bytes(config, precision == "bf16") * tokens + 8.0 * config.width * tokens
    return 4.0 * (1 + moments) * P + max(4.0 * P, saved + logits + head + cast)


def training_usage(
    config: ModelConfig,
    steps: int,
    batch: int,
    context: int,
    precision: Precision,
    hardware: Hardware,
    micro_batch: int | None = None,
    moments: float = 2,
) -> Usage:
    """What `steps` optimizer steps of `batch` sequences will use, passed in parts of `micro_batch`."""
    how = "timed steps" if calibrated(precision, hardware) else "operations over an assumed share of the peak"
    return usage(
        times(step_counts(config, batch, context, precision, hardware, micro_batch), steps),
        training_memory(config, portion(batch, micro_batch, hardware), context, precision, hardware.device, moments=moments),
        hardware,
        ASSUMED,
        flops=training_flops(config, float(steps) * batch * context, context),
        communication=steps * exchanged_bytes(config, hardware.count),
        method=f"{how}, {precision}",
    )
