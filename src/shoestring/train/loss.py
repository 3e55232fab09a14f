"""The loss of language modelling, without the full logits.

Next-token cross-entropy over the targets that are not IGNORED. Logits of `chunk` tokens exist at one time, and their
gradient is formed beside the loss (as in Liger Kernel, arXiv 2410.10989), so that nothing of the size tokens x vocabulary
is kept for the backward pass and no logit is computed twice:

    logits = h W^T;  loss = mean(logsumexp(logits) - logits[target]);  d logits = (softmax(logits) - onehot(target)) / count

N tokens, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.errors import DeviceError
from shoestring.model import Inputs

if TYPE_CHECKING:
    from shoestring.data.loader import Batch

IGNORED = -100
"""A target that does not count."""

CHUNK = 16_384
"""Tokens whose logits exist at one time, unless set otherwise: on an H200 twice as many are no faster."""
CPU_CHUNK = 512
"""The most on a CPU: there the logits then stay in its cache (4096 x 4096 logits: 0.29 s against 0.39 s for all at once)."""

Objective = Callable[[Any, "Batch"], Tensor]
"""Model and batch -> mean loss over the batch's counted targets, a scalar to differentiate."""

Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def next_token(chunk: int = CHUNK) -> Objective:
    """The objective of language modelling: each token from those before it.

    Args:
        chunk: tokens whose logits exist at one time; 0 for all, by PyTorch's own operators.
    """

    def objective(model: Any, batch: Batch) -> Tensor:
        def loss(x_BTC: Tensor, head: nn.Module) -> Tensor:
            return cross_entropy(x_BTC.flatten(0, 1), head, batch.targets_BT.flatten(), chunk)

        found: Tensor = model(batch.tokens_BT, Inputs(documents_BT=batch.documents_BT), read=loss)
        return found

    return objective


def cross_entropy(hidden_NC: Tensor, head: nn.Module, targets_N: Tensor, chunk: int = CHUNK) -> Tensor:
    """Mean cross-entropy of `head(hidden)` against the targets that are not IGNORED; 0 when all are ignored.

    A head other than a plain linear layer without bias is called as it is, on all tokens at once.
    """
    if chunk == 0 or type(head) is not nn.Linear or head.bias is not None:
        logits_NV = head(hidden_NC)
        logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
        total = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="sum")
        return total / (targets_N != IGNORED).sum().clamp(min=1)
    return _Chunked.apply(hidden_NC, head.weight, targets_N, chunk)


class _Chunked(torch.autograd.Function):
    """Head and cross-entropy in one, chunk by chunk; the gradients are ready when the loss is."""

    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, chunk: int) -> Tensor:
        device = hidden_NC.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NC.dtype
        inputs_NC, matrix_VC = hidden_NC.detach().to(dtype), weight_VC.detach().to(dtype)
        chunk = chunk if device == "cuda" else min(chunk, CPU_CHUNK)
        wide = torch.promote_types(dtype, torch.float32)
        kernel = _kernel(hidden_NC.device, wide)
        share = (targets_N != IGNORED).sum().clamp(min=1).to(wide).reciprocal()
        total = torch.zeros((), device=hidden_NC.device, dtype=wide)
        hidden_grad = torch.empty_like(inputs_NC) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(matrix_VC, dtype=weight_VC.dtype) if ctx.needs_input_grad[1] else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets_N), chunk):
                part = slice(start, start + chunk)
                logits_NV = inputs_NC[part] @ matrix_VC.T
                lost, logits_grad_NV = kernel(logits_NV, targets_N[part], share)
                total += lost
                if hidden_grad is not None:
                    torch.matmul(logits_grad_NV, matrix_VC, out=hidden_grad[part])
                if weight_grad is not None:
                    weight_grad += logits_grad_NV.T @ inputs_NC[part]
        ctx.gradients = (hidden_grad, weight_grad, hidden_NC.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, weight_grad, dtype = ctx.gradients
        del ctx.gradients
        if hidden_grad is not None:
            hidden_grad = hidden_grad.to(dtype).mul_(upstream[0])
        if weight_grad is not None:
            weight_grad.mul_(upstream[0])
        return hidden_grad, weight_grad, None, None


def softmax_and_gradient(logits_NV: Tensor, targets_N: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss times `share`, and its gradient by the logits in their dtype; plain operations."""
    counted_N = targets_N != IGNORED
    places_N1 = targets_N.clamp(min=0)[:, None]
    logs_NV = F.log_softmax(logits_NV, dim=-1, dtype=share.dtype)
    total = -(logs_NV.gather(1, places_N1)[:, 0] * counted_N).sum() * share
    weight_N1 = (counted_N * share)[:, None]
    gradient_NV = logs_NV.exp_().mul_(weight_N1)
    gradient_NV.scatter_add_(1, places_N1, -weight_N1)
    return total, gradient_NV.to(logits_NV.dtype)


def _kernel(device: torch.device, wide: torch.dtype) -> Kernel:
    """What forms loss and gradient from logits: one Triton kernel on a GPU, plain operators elsewhere."""
    if device.type != "cuda" or wide != torch.float32:
        return softmax_and_gradient
    try:
        from shoestring.train import softmax_kernel
    except ImportError as error:
        raise DeviceError(
            f"training.loss_chunk: needs the package triton on a GPU ({error}); install it, or set it to 0"
        ) from None
    return softmax_kernel.softmax_and_gradient
