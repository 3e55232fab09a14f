"""How far a student's distributions are from a teacher's, and the loss made of it, without keeping any logits.

    forward   KL(teacher || student)      the student covers all that the teacher does (Hinton et al., arXiv 1503.02531)
    reverse   KL(student || teacher)      the student keeps to what the teacher finds likely (MiniLLM, arXiv 2306.08543)
    jsd       (KL(t || m) + KL(s || m)) / 2,  m the mean of both (GKD, arXiv 2306.13649)

with s and t the softmax of logits over the temperature. The gradients with regard to the student's logits z are closed forms:

    forward   (s - t) / T          reverse   s (log s/t - KL(s || t)) / T          jsd   s (log s/m - KL(s || m)) / 2T

so loss and gradient are formed together (`train.chunked`).

N tokens that count, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from shoestring.choice import Choice, OneOf, Table


def forward(own_NV: Tensor, theirs_NV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher || student): the student covers all that the teacher does."""
    wanted_NV = theirs_NV.exp()
    return (wanted_NV * (theirs_NV - own_NV)).sum(), own_NV.exp().sub_(wanted_NV)


def reverse(own_NV: Tensor, theirs_NV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(student || teacher): the student keeps to what the teacher finds likely."""
    share_NV, ratio_NV = own_NV.exp(), own_NV.sub_(theirs_NV)
    each_N1 = (share_NV * ratio_NV).sum(-1, keepdim=True)
    return each_N1.sum(), share_NV.mul_(ratio_NV.sub_(each_N1))


def jsd(own_NV: Tensor, theirs_NV: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of KL(teacher || m) and KL(student || m), m the mean of both distributions."""
    share_NV, middle_NV = own_NV.exp(), torch.logaddexp(own_NV, theirs_NV) - math.log(2.0)
    ratio_NV = own_NV.sub_(middle_NV)
    each_N1 = (share_NV * ratio_NV).sum(-1, keepdim=True)
    other = (theirs_NV.exp() * (theirs_NV - middle_NV)).sum()
    return (each_N1.sum() + other) / 2, share_NV.mul_(ratio_NV.sub_(each_N1)).mul_(0.5)


DIVERGENCES = Table(
    "Distil.kind",
    Choice("forward", forward, "the student covers all that the teacher does", row="K1", paper="1503.02531"),
    Choice("reverse", reverse, "the student keeps to what the teacher finds likely", row="K1", paper="2306.08543"),
    Choice("jsd", jsd, "Jensen-Shannon: both are held against their mean", row="K1", paper="2306.13649"),
)
"""Each makes of both log-probabilities, (N, V), the divergence summed over N and its gradient with regard to the student's
logits; it may write over the student's."""

DivergenceName = Annotated[str, OneOf(DIVERGENCES)]


def divergence(student_NV: Tensor, teacher_NV: Tensor, kind: DivergenceName, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The divergence summed over N, times temperature squared, in nats; and its gradient with regard to the student's logits."""
    own_NV = F.log_softmax(student_NV.float() / temperature, dim=-1)
    theirs_NV = F.log_softmax(teacher_NV.float() / temperature, dim=-1)
    total, gradient_NV = DIVERGENCES[kind](own_NV, theirs_NV)
    return total * temperature**2, gradient_NV.mul_(temperature)


@dataclass(frozen=True, slots=True)
class Mix:
    """What the loss is made of: (1 - alpha) of a divergence at a temperature, alpha of the text's cross-entropy."""

    kind: DivergenceName = "forward"
    temperature: float = 1.0
    alpha: float = 0.0

    def loss(self, student_NV: Tensor, teacher_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        """Summed over N, and its gradient with regard to the student's logits."""
        total, gradient_NV = divergence(student_NV, teacher_NV, self.kind, self.temperature)
        if self.alpha == 0:
            return total, gradient_NV
        hard_NV = F.log_softmax(student_NV.float(), dim=-1)
        lost = -hard_NV.gather(1, targets_N[:, None]).sum()
        slope_NV = hard_NV.exp_()
        slope_NV.scatter_add_(1, targets_N[:, None], slope_NV.new_full((len(targets_N), 1), -1.0))
        return total * (1 - self.alpha) + lost * self.alpha, gradient_NV.mul_(1 - self.alpha).add_(slope_NV, alpha=self.alpha)
