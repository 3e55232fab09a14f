"""What measuring a model costs: forward passes over the windows and the tasks' rows, and loading the model.

    operations of the tokens + bytes of checkpoints + a start

Operations reach a share of large products' rate: what a forward pass with its head does.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shoestring.architecture import ModelConfig
from shoestring.architecture import cost as checkpoint
from shoestring.architecture.counts import forward_flops, parameters, widest
from shoestring.measure import Hardware, Usage
from shoestring.measure.counts import Units, products, usage

PASS_TOKENS = {"cpu": 4096, "cuda": 65_536}
"""Tokens of one forward pass: enough to keep the device busy. Constants, so that a rerun sums in the same order."""
LOGIT_BYTES = {"cpu": 1 << 26, "cuda": 1 << 29}
"""Bytes of float32 logits that exist at one time."""
ASSUMED: Units = {
    **checkpoint.ASSUMED,
    "evaluate.matrices": products("fp32", 0.6, on_gpu=0.4),
}
"""Seconds of an operation, and of handling checkpoints."""
BYTES_PER_TOKEN = 4.0
"""Of task files, JSON's own characters counted in."""
ROW_BYTES = 300.0
OPTIONS = 3.0
"""Times that a row's context is read, once per choice: choice tasks have 2 to 5."""


def task_tokens(paths: Iterable[Path], limit: int | None) -> float:
    """Tokens to read for task files, from their sizes; packed files count fourfold, missing ones nothing."""
    total = 0.0
    for path in paths:
        if path.is_file():
            size = path.stat().st_size * (4.0 if path.suffix == ".xz" else 1.0)
            rows = size / ROW_BYTES
            total += size * (min(1.0, limit / rows) if limit else 1.0) / BYTES_PER_TOKEN * OPTIONS
    return total


def evaluation_usage(config: ModelConfig, tokens: float, context: int, models: int, hardware: Hardware) -> Usage:
    """Use of measuring on so many tokens in windows of `context`, with `models` models (a reference is a second one)."""
    flops = models * forward_flops(config, tokens, context)
    weights = 4.0 * parameters(config)
    counts = {"evaluate.matrices": flops, **checkpoint.checkpoint_counts(config, read=models)}
    # A pass holds a batch's residual stream and feed-forward and the logits of a chunk twice; loading holds the file's tensors.
    passed = min(tokens, PASS_TOKENS.get(hardware.device, PASS_TOKENS["cuda"]))
    batch = 4 * passed * (6 * config.width + 3 * widest(config))
    logits = min(LOGIT_BYTES.get(hardware.device, LOGIT_BYTES["cuda"]), 4 * passed * config.vocabulary)
    memory = models * weights + max(weights, batch + 2 * logits)
    return usage(counts, memory, hardware, ASSUMED, flops=flops, method="forward operations, loading, a start")
