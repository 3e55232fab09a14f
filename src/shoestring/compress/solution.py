"""What a technique is given to solve, and what becomes of a matrix: one thing for the walk, its restart points and the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from shoestring.architecture import Slot
from shoestring.model.forms import build, put


@dataclass(frozen=True, slots=True)
class Group:
    """Matrices that multiply one input, with what is known of that input.

    Attributes:
        weights: float32 (O, I) each, by dotted name such as "blocks.3.mixer.query".
        statistic: of the input over all calibration tokens; with `gram`, the (I, I) sum of x x^T.
        tokens: how many were summed.
        slots: what is declared of each matrix, such as the norm that it is `fed_by`.
    """

    weights: dict[str, Tensor]
    statistic: Tensor
    tokens: int
    slots: Mapping[str, Slot]


@dataclass(frozen=True, slots=True)
class Solution:
    """What becomes of one matrix.

    Attributes:
        form: how it is kept, a name in `model.forms.FORMS`.
        parts: its tensors in that form, the bias apart.
        settings: what else the form needs.
        report: figures about it, such as its relative error.
    """

    form: str
    parts: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def install(root: nn.Module, name: str, solution: Solution) -> Any:
    """Put a solution in a matrix's place, its bias kept; the new matrix."""
    old: Any = root.get_submodule(name)
    device = old.weight_rows(0, 1).device
    bias = {} if old.bias is None else {"bias": old.bias.detach()}
    made = build(solution.form, solution.settings, {**{key: part.to(device) for key, part in solution.parts.items()}, **bias})
    put(root, name, made)
    return made
