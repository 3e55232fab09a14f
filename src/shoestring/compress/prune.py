"""Which weights a pruned matrix keeps: the best scores of each row, of the whole matrix, or n of every m in a row.

Zeros anywhere lose the least, but nothing multiplies them faster: an index for each weight costs more than it saves. With n of
every m neighbouring inputs (arXiv 2104.08378) a few bits say which stay, and sparse tensor cores skip the rest; what stays is
then the best of each run of m, not of the row.

O outputs, I inputs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from shoestring.choice import Choice, OneOf, Table
from shoestring.compress.solution import Solution
from shoestring.errors import SettingError

PATTERNS: Table[tuple[int, int] | None] = Table(
    "Pruning.pattern",
    Choice("unstructured", None, "zeros anywhere in a row or a matrix", row="I1", paper="1506.02626"),
    Choice("2:4", (2, 4), "two of each four neighbouring inputs stay", row="I2", paper="2104.08378"),
    Choice("1:4", (1, 4), "one of each four neighbouring inputs stays", row="I2", paper="2102.04010"),
    Choice("4:8", (4, 8), "four of each eight neighbouring inputs stay", row="I2", paper="2102.04010"),
    about=__doc__,
)
"""Each stands for how many of how many neighbouring inputs of a row stay; None where that is free."""

Pattern = Annotated[str, OneOf(PATTERNS)]
Scope = Literal["row", "layer"]


def keep(score_OI: Tensor, sparsity: float, pattern: Pattern = "unstructured", scope: Scope = "row") -> Tensor:
    """True where a weight stays, (O, I): exactly the share `sparsity` (rounded down to whole weights) of lowest scores goes.

    Args:
        score_OI: a weight's worth, not negative.
        pattern: "n:m" keeps n of each m neighbouring inputs of a row; `sparsity` and `scope` then say nothing more.
        scope: within what scores compete: a row (one output), or the layer's whole matrix.
    """
    if run := PATTERNS[pattern]:
        kept, size = run
        return _without_lowest(score_OI.unflatten(1, (-1, size)), size - kept).flatten(1)
    if scope == "layer":
        return _without_lowest(score_OI.flatten(), int(sparsity * score_OI.numel() + 1e-9)).view_as(score_OI)
    return _without_lowest(score_OI, int(sparsity * score_OI.shape[1] + 1e-9))


def own_sparsity(settings: Any) -> Any:
    """Settings as they were given; where a pattern is named and no sparsity, with the pattern's."""
    pattern = settings.get("pattern") if isinstance(settings, dict) else None
    run = PATTERNS.get(pattern) if isinstance(pattern, str) else None
    return {"sparsity": 1 - run[0] / run[1], **settings} if run else settings


def check_pattern(sparsity: float, pattern: Pattern) -> None:
    """A pattern's sparsity is its own.

    Raises:
        ValueError: `sparsity` says something else.
    """
    if run := PATTERNS[pattern]:
        kept, size = run
        if abs(sparsity - (1 - kept / size)) > 1e-9:
            raise ValueError(f"pattern {pattern} means sparsity {1 - kept / size:g}, not {sparsity:g}; set one of them only")


def check_widths(inputs: dict[str, int], pattern: Pattern, where: str) -> None:
    """Every matrix can be cut into the pattern's runs of inputs.

    Raises:
        SettingError: names the matrices that can't.
    """
    run = PATTERNS[pattern]
    wrong = [name for name, width in inputs.items() if run and width % run[1]]
    if run and wrong:
        raise SettingError(
            f"{where}: {pattern} needs inputs in runs of {run[1]}, and those of {len(wrong)} matrices ({wrong[0]} ...) are not; "
            "use unstructured"
        )


def said(pattern: Pattern) -> str:
    """What a pattern of zeros is good for, in one honest line."""
    if PATTERNS[pattern] is None:
        return "zeros are stored as zeros: disk, memory and time are saved only where something compresses or skips them"
    return (
        f"{pattern}: the zeros have the pattern that sparse tensor cores want, but no kernel here uses it yet; vLLM, "
        "llm-compressor and torchao dropped 2:4 in 2026"
    )


def solution(weight_OI: Tensor, kept_OI: Tensor, **report: Any) -> Solution:
    """A matrix with zeros where its weights are not kept, and how many of them are zero."""
    pruned_OI = weight_OI.detach().masked_fill(~kept_OI, 0.0)
    zeros = pruned_OI.numel() - int(pruned_OI.count_nonzero())
    return Solution("dense", {"weight": pruned_OI}, {}, {**report, "zeros": zeros})


def _without_lowest(score: Tensor, count: int) -> Tensor:
    """False at the `count` lowest entries along the last dimension; ties are broken, so that the count is exact."""
    kept = torch.ones_like(score, dtype=torch.bool)
    if count == 0:
        return kept
    return kept.scatter_(-1, score.topk(count, dim=-1, largest=False, sorted=False).indices, False)
