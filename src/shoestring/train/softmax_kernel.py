"""Softmax, cross-entropy and its gradient in one Triton kernel, for GPUs: two passes over each row, the second one in cache.

For 16384 x 50304 logits in bf16 an H200 takes 1.20 ms (2.75 TB/s of one read and one write), what PyTorch's compiler makes of
the same arithmetic 1.87 ms. The gradient overwrites the logits. Online softmax: arXiv 1805.02867.

N tokens, V vocabulary.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shoestring.data.batch import IGNORED

BLOCK, WARPS = 8192, 16
"""The fastest of twenty pairs on an H200; the next ones are within 5 %."""


@triton.jit
def _rows(  # type: ignore[no-untyped-def]
    logits,
    targets,
    losses,
    columns,
    stride,
    ignored: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * stride
    target = tl.load(targets + row)
    places = tl.arange(0, BLOCK)
    if target == ignored:
        tl.store(losses + row, 0.0)
        for first in range(0, columns, BLOCK):
            tl.store(start + first + places, 0.0, mask=first + places < columns)
        return
    largest = -float("inf")
    total = 0.0
    for first in range(0, columns, BLOCK):
        x = tl.load(start + first + places, mask=first + places < columns, other=-float("inf")).to(tl.float32)
        larger = tl.maximum(largest, tl.max(x))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(x - larger))
        largest = larger
    logsum = largest + tl.log(total)
    picked = tl.load(start + target).to(tl.float32)
    tl.store(losses + row, logsum - picked)
    tl.debug_barrier()  # the target's logit is read before any thread overwrites it
    for first in range(0, columns, BLOCK):
        inside = first + places < columns
        x = tl.load(start + first + places, mask=inside, other=-float("inf")).to(tl.float32)
        gradient = tl.exp(x - logsum) - tl.where(first + places == target, 1.0, 0.0)
        tl.store(start + first + places, gradient, mask=inside)


def softmax_and_gradient(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """As `loss.softmax_and_gradient`, in float32 inside; the logits are overwritten by their gradient."""
    losses_N = torch.empty(len(logits_NV), device=logits_NV.device, dtype=torch.float32)
    grid = (len(logits_NV),)
    _rows[grid](
        logits_NV, targets_N, losses_N, logits_NV.shape[1], logits_NV.stride(0),
        ignored=IGNORED, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return losses_N.sum(), logits_NV
