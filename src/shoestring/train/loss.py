"""What a model learns by: objectives, whose losses are sums that are divided once; and next-token cross-entropy.

    total = sum over counted targets of logsumexp(logits) - logits[target];   d logits = softmax(logits) - onehot(target)

N tokens, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.data.batch import IGNORED, Batch
from shoestring.errors import DeviceError
from shoestring.model import Inputs
from shoestring.train.chunked import chunked
from shoestring.train.settings import CHUNK


@dataclass(frozen=True, slots=True)
class Loss:
    """Sums over what was counted. They add over micro-batches and ranks, and are divided once by the sum of the counts, so that
    a target weighs the same wherever it stands.

    Attributes:
        total: to differentiate. count: what was counted, such as targets.
        figures: more sums, by the names under which their means are logged.
    """

    total: Tensor
    count: Tensor
    figures: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """Loss per counted target; 0 when none is."""
        return self.total / self.count.clamp(min=1)

    def detached(self) -> Loss:
        """The same without a graph."""
        return Loss(self.total.detach(), self.count, {name: figure.detach() for name, figure in self.figures.items()})


def added(losses: Sequence[Loss]) -> Loss:
    """The loss of several parts together."""
    if len(losses) == 1:
        return losses[0]
    figures = {name: torch.stack([loss.figures[name] for loss in losses]).sum() for name in losses[0].figures}
    return Loss(torch.stack([loss.total for loss in losses]).sum(), torch.stack([loss.count for loss in losses]).sum(), figures)


Objective = Callable[[nn.Module, Batch], Loss]
"""Model and (part of a) batch -> its loss. It calls the model once, through `forward`."""


def next_token(chunk: int = CHUNK) -> Objective:
    """The objective of language modelling: each token from those before it.

    Args:
        chunk: tokens whose logits exist at one time; 0 for all, by PyTorch's own operators.
    """

    def objective(model: nn.Module, batch: Batch) -> Loss:
        targets_BT = batch["targets"]

        def read(x_BTC: Tensor, head: nn.Module) -> Tensor:
            return cross_entropy(x_BTC.flatten(0, 1), head, targets_BT.flatten(), chunk)

        total = model(batch["tokens"], Inputs(documents_BT=batch.get("documents")), read=read)
        return Loss(total, (targets_BT != IGNORED).sum())

    return objective


def cross_entropy(hidden_NC: Tensor, head: nn.Module, targets_N: Tensor, chunk: int = CHUNK) -> Tensor:
    """Summed cross-entropy of `head(hidden)` against the targets that are not IGNORED."""
    if chunk == 0:
        logits_NV = head(hidden_NC)
        logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
        return F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="sum")
    fused = _fused(hidden_NC.device, hidden_NC.dtype)
    return chunked(hidden_NC, head, lambda logits_NV, part: fused(logits_NV, targets_N[part]), chunk)


def softmax_and_gradient(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss, and its gradient by the logits in their dtype; plain operations."""
    counted_N = targets_N != IGNORED
    places_N1 = targets_N.clamp(min=0)[:, None]
    logs_NV = F.log_softmax(logits_NV, dim=-1, dtype=torch.promote_types(logits_NV.dtype, torch.float32))
    total = -(logs_NV.gather(1, places_N1)[:, 0] * counted_N).sum()
    gradient_NV = logs_NV.exp_().mul_(counted_N[:, None])
    gradient_NV.scatter_add_(1, places_N1, -counted_N[:, None].to(gradient_NV.dtype))
    return total, gradient_NV.to(logits_NV.dtype)


def _fused(device: torch.device, dtype: torch.dtype) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What forms loss and gradient from logits: one Triton kernel on a GPU, plain operators elsewhere."""
    if device.type != "cuda" or dtype == torch.float64:
        return softmax_and_gradient
    try:
        from shoestring.train import softmax_kernel
    except ImportError as error:
        raise DeviceError(
            f"training.loss_chunk: needs the package triton on a GPU ({error}); install it, or set it to 0"
        ) from None
    return softmax_kernel.softmax_and_gradient
