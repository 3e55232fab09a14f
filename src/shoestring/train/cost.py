"""What training costs: the time of an optimizer step, and the memory it holds, before anything is made.

    step = sum over terms of (amount of work in the term) x (seconds per unit of it on this machine)

The terms are those that grow differently with the shape: the blocks' matrix products, the head's, attention's, values
passed through memory by element-wise operators, logits, parameters updated, layers started. `train.probe` measures the
seconds per unit by timing real steps. Without a calibration: operations over an assumed share of the vendor's peak.

C width, F feed-forward width, L layers, V vocabulary, N tokens of a micro-batch, P parameters.
"""

from __future__ import annotations

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import elements, linear_parameters, mixing_flops, parameters, saved_bytes, training_flops
from shoestring.measure import Hardware, Usage, predicted_usage
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
"""The terms of a step, in the order of `amounts`."""


def amounts(config: ModelConfig, sequences: int, context: int) -> dict[str, float]:
    """How much of each term one forward and backward pass of a micro-batch holds; `parameters`: once an optimizer step."""
    tokens = float(sequences * context)
    return {
        "matrices": 6.0 * linear_parameters(config) * tokens,
        "head": 6.0 * config.vocabulary * config.width * tokens,
        "attention": 3.0 * mixing_flops(config, (context + 1) / 2) * tokens,
        "elements": elements(config) * tokens,
        "logits": float(config.vocabulary) * tokens,
        "parameters": float(parameters(config)),
        "layers": float(len(config.layers)),
    }


def calibrated(precision: Precision, hardware: Hardware) -> bool:
    """Whether real steps in this precision have been timed on the machine."""
    return f"train.{precision}.matrices" in hardware.reached


def step_seconds(
    config: ModelConfig, batch: int, context: int, precision: Precision, hardware: Hardware, micro_batch: int | None = None
) -> float:
    """Seconds of one optimizer step of `batch` sequences, passed in parts of `micro_batch` on each device.

    Several devices share the sequences; what their exchange of gradients takes longer than the backward pass is added.
    """
    share = max(1, batch // hardware.count)
    micro = min(share, micro_batch or share)
    if not calibrated(precision, hardware):
        passes = training_flops(config, batch * context, context) / assumed_rate(precision, hardware) / hardware.count
        return passes + _exchange_seconds(config, passes, hardware) + LOOP_SECONDS
    units = {term: hardware.reached.get(f"train.{precision}.{term}", 0.0) for term in TERMS}
    work = amounts(config, micro, context)
    once = work["parameters"] * units["parameters"]
    passes = batch / hardware.count / micro * sum(work[term] * units[term] for term in TERMS if term != "parameters")
    return passes + once + _exchange_seconds(config, passes, hardware) + LOOP_SECONDS


def exchanged_bytes(config: ModelConfig, devices: int) -> float:
    """Bytes that all devices together send in one step of data-parallel training: a ring all-reduce of float32 gradients."""
    return 2.0 * (devices - 1) * 4.0 * parameters(config)


def _exchange_seconds(config: ModelConfig, passes: float, hardware: Hardware) -> float:
    if hardware.count == 1:
        return 0.0
    exchange = exchanged_bytes(config, hardware.count) / hardware.count / (hardware.link or 16e9)
    return max(0.0, exchange - passes * 2 / 3)


def assumed_rate(precision: Precision, hardware: Hardware) -> float:
    """FLOP/s of training on one device that has not been calibrated."""
    if hardware.device == "cpu":
        return CPU_SHARE * hardware.rate(precision, share=1.0)
    if precision == "bf16" and "bf16" in hardware.peak:
        return MFU * hardware.peak["bf16"]
    return MFU_FP32 * hardware.peak["fp32"]


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
    moments: int = 2,
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
    moments: int = 2,
) -> Usage:
    """What `steps` optimizer steps of `batch` sequences will use, passed in parts of `micro_batch`."""
    seconds = steps * step_seconds(config, batch, context, precision, hardware, micro_batch)
    share = max(1, batch // hardware.count)
    micro = min(share, micro_batch or share)
    how = "timed steps" if calibrated(precision, hardware) else "operations over an assumed share of the peak"
    return predicted_usage(
        seconds=seconds,
        hardware=hardware,
        flops=training_flops(config, float(steps) * batch * context, context),
        peak_memory=training_memory(config, micro, context, precision, hardware.device, moments=moments),
        communication=steps * exchanged_bytes(config, hardware.count),
        method=f"{how}, {precision}",
    )
