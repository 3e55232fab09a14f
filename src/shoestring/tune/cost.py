"""What tuning with adapters costs: training without the gradients of the frozen matrices.

A step passes forward (1 part of 3) and carries gradients back to the inputs (1 part); the third part, the gradients of the
weights, is only that of the thin matrices. Its time is this share of a full training step's:
"""

from __future__ import annotations

from shoestring.architecture import ModelConfig
from shoestring.architecture import cost as checkpoint
from shoestring.architecture.counts import parameters, saved_bytes, training_flops
from shoestring.errors import SettingError
from shoestring.measure import Hardware, Usage
from shoestring.measure.counts import Units, times, usage
from shoestring.train import cost as training
from shoestring.train.precision import Precision

SHARE = 0.8
"""Of a full step's time: two thirds of the operations, and the thin products, which keep a processor less busy."""
ASSUMED: Units = {**training.ASSUMED, **checkpoint.ASSUMED}
"""Seconds of a training step's terms, and of handling checkpoints."""


def matrices(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the blocks' matrices, by their whole names."""
    return {slot.name: (slot.outputs, slot.inputs) for slot in config.matrices()}


def adapter_parameters(config: ModelConfig, rank: int, names: list[str]) -> int:
    """Numbers that adapters of a rank learn beside the named matrices."""
    return rank * sum(sum(shape) for name, shape in matrices(config).items() if name in names)


def must_be_low(rank: int, full: list[int]) -> None:
    """Refuse a rank beyond the full ranks of all matrices that are adapted: it can say no more than they, and may fill memory.

    Raises:
        SettingError: with the largest of them.
    """
    if rank > max(full):
        raise SettingError(f"lora.rank: {rank} is more than the full rank of every matrix that is adapted (at most {max(full)})")


def step_flops(config: ModelConfig, tokens: float, context: float, adapter: int) -> float:
    """Operations of a step on so many tokens: forward and backward to the inputs, and three passes of the thin matrices."""
    return training_flops(config, tokens, context) * 2 / 3 + 6.0 * adapter * tokens


def tuning_usage(
    config: ModelConfig,
    steps: int,
    batch: int,
    context: int,
    micro_batch: int,
    precision: Precision,
    adapter: int,
    hardware: Hardware,
) -> Usage:
    """Use of `steps` steps of `batch` sequences, of loading the checkpoint and of writing the merged one."""
    weights = 4.0 * parameters(config)
    counts = times(training.step_counts(config, batch, context, precision, hardware, micro_batch), steps * SHARE)
    tokens = micro_batch * context
    logits = min(tokens, 8192) * config.vocabulary * 8.0
    saved = (saved_bytes(config, precision == "bf16") + 8.0 * config.width) * tokens
    return usage(
        {**counts, **checkpoint.checkpoint_counts(config, written=1)},
        weights + 16.0 * adapter + max(saved + logits, weights),
        hardware,
        ASSUMED,
        flops=steps * step_flops(config, float(batch * context), context, adapter),
        method=f"{SHARE:.0%} of full training steps, {precision}, plus loading and writing",
    )
