"""Head and loss in one, chunk by chunk, so that the logits of all tokens never exist.

A kernel forms a loss of some logits and its gradient together (as in Liger Kernel, arXiv 2410.10989): nothing of the size
tokens x vocabulary is kept for the backward pass, and no logit is computed twice.

    logits = h W^T;   d h = (d logits) W;   d W = (d logits)^T h

Losses are sums, never means: what they are divided by is known only when all micro-batches and ranks are through.

N tokens, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.train.settings import CHUNK, CPU_CHUNK

Kernel = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""Logits (N, V) of a part of the tokens, and which part -> their summed loss, and its gradient by the logits in their dtype.

The logits may be overwritten.
"""


def chunked(hidden_NC: Tensor, head: nn.Module, kernel: Kernel, chunk: int = CHUNK) -> Tensor:
    """The summed loss of `head(hidden)`, to differentiate by both.

    A head other than a plain linear layer without bias is called as it is, on all tokens at once.
    """
    plain = isinstance(head, nn.Linear) and head.bias is None
    inputs, weight_VC = (hidden_NC, head.weight) if plain else (head(hidden_NC), None)
    total: Tensor = _Chunked.apply(inputs, weight_VC, kernel, chunk if inputs.is_cuda else min(chunk, CPU_CHUNK))
    return total


class _Chunked(torch.autograd.Function):
    """The gradients are ready when the loss is. Without a weight the inputs are the logits."""

    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, weight_VC: Tensor | None, kernel: Kernel, chunk: int) -> Tensor:
        device = hidden_NC.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NC.dtype
        inputs_NC = hidden_NC.detach().to(dtype)
        matrix_VC = None if weight_VC is None else weight_VC.detach().to(dtype)
        total = torch.zeros((), device=hidden_NC.device, dtype=torch.promote_types(dtype, torch.float32))
        hidden_grad = torch.empty_like(inputs_NC) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight_VC) if weight_VC is not None and ctx.needs_input_grad[1] else None
        for start in range(0, len(inputs_NC), chunk):
            part = slice(start, start + chunk)
            logits_NV = inputs_NC[part].clone() if matrix_VC is None else inputs_NC[part] @ matrix_VC.T
            lost, gradient_NV = kernel(logits_NV, part)
            total += lost
            if hidden_grad is not None and matrix_VC is None:
                hidden_grad[part] = gradient_NV
            elif hidden_grad is not None and matrix_VC is not None:
                torch.matmul(gradient_NV, matrix_VC, out=hidden_grad[part])
            if weight_grad is not None:
                weight_grad += gradient_NV.T @ inputs_NC[part]
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
