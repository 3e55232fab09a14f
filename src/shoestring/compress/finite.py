"""Nothing that is NaN or infinite goes into a solver or comes out of one: the one check, for all techniques of the room."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.errors import NotFinite


def check(where: str, tensors: Mapping[str, Tensor], advice: str) -> None:
    """All floating tensors are finite.

    Args:
        where: what the message begins with; the tensor's key follows.

    Raises:
        NotFinite: names the first tensor that is not, how many of its values are not, and one of these.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or (finite := torch.isfinite(tensor)).all():
            continue
        bad = tensor[~finite]
        raise NotFinite(f"{where}{name}: {len(bad):,} of {tensor.numel():,} values are not finite ({bad[0].item()}); {advice}")


def check_model(model: nn.Module, who: str) -> None:
    """All weights of a model are finite.

    Raises:
        NotFinite: names the first tensor that is not.
    """
    check(f"{who}: ", model.state_dict(), "the checkpoint is damaged, or its training diverged: take an earlier one")


def check_report(where: str, report: Mapping[str, Any]) -> None:
    """All figures of a report are finite.

    Raises:
        NotFinite: names the first that is not.
    """
    for key, value in report.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NotFinite(f"{where}: its {key} came out as {value}; its weights or inputs are too large for float32")
