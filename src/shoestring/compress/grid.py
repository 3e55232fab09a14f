"""The grid that a weight is rounded to: group-wise integers of b bits with a scale each, with or without a zero point.

    symmetric:   weight = code * scale            code in [-2^(b-1), 2^(b-1) - 1], scale = -extreme / 2^(b-1)
    positive:    the same                         scale = the larger of -min / 2^(b-1) and max / (2^(b-1) - 1/2)
    asymmetric:  weight = (code - zero) * scale   scale = (max - min) / (2^b - 1), zero the code of weight 0

`extreme` is the group's weight of largest size with its sign: it lands on the code that has no counterpart, exactly, and the
step is 2^(b-1) to the extreme instead of 2^(b-1) - 1/2 (compressed-tensors) or - 1. So a scale may be negative, as in llama.cpp's
Q4_0. Measured on SmolLM2-135M at 4 bits, groups of 64: KL to the dense model 0.343 instead of 0.425 and 0.492. Where a reader
takes no scale below zero, "positive" keeps half a step of the largest weight to clipping, as compressed-tensors does.

Scales are rounded to bfloat16 first, the form in which they are stored, so that codes are the nearest ones on the grid that is
really used.

O outputs, I inputs, G groups of inputs, S inputs of one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shoestring.errors import SettingError

SHRINKS = tuple(1 - step / 20 for step in range(9))
"""Shares of the largest weight at which a scale search ends the grid: 1.00, 0.95 ... 0.60."""

USUAL_SIZES = (128, 64, 32)
"""Group sizes that kernels know."""

Search = Literal["none", "mse"]
Signs = Literal["signed", "positive"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a matrix's weights may lie.

    Attributes:
        scales_OG: step of each group, perhaps negative, float32 whose values bfloat16 can hold.
        zeros_OG: code of weight 0 in each group, float32 whole numbers; None on a symmetric grid.
        bits: of a code.
    """

    scales_OG: Tensor
    zeros_OG: Tensor | None
    bits: int

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1

    def codes(self, weight_OI: Tensor) -> Tensor:
        """The nearest code of each weight, int8 (O, I)."""
        groups_OGS = weight_OI.unflatten(1, (self.scales_OG.shape[1], -1)) / self.scales_OG[..., None]
        groups_OGS.round_()
        if self.zeros_OG is not None:
            groups_OGS += self.zeros_OG[..., None]
        return groups_OGS.clamp_(self.lowest, self.highest).to(torch.int8).flatten(1)

    def values(self, codes_OI: Tensor) -> Tensor:
        """The weights that codes stand for, float32 (O, I)."""
        groups_OGS = codes_OI.unflatten(1, (self.scales_OG.shape[1], -1)).float()
        if self.zeros_OG is not None:
            groups_OGS -= self.zeros_OG[..., None]
        return (groups_OGS * self.scales_OG[..., None]).flatten(1)

    def zeros_in(self, codes_OI: Tensor) -> int:
        """How many codes stand for weight 0."""
        if self.zeros_OG is None:
            return codes_OI.numel() - int(codes_OI.count_nonzero())
        return int((codes_OI.unflatten(1, (self.zeros_OG.shape[1], -1)) == self.zeros_OG[..., None]).sum())

    def rows(self, chosen: slice | Tensor) -> Grid:
        """The grid of some outputs alone."""
        return Grid(self.scales_OG[chosen], None if self.zeros_OG is None else self.zeros_OG[chosen], self.bits)


def stacked(grids: Sequence[Grid]) -> Grid:
    """Grids of several matrices of one width, as that of the matrices one below the other."""
    zeros = [grid.zeros_OG for grid in grids if grid.zeros_OG is not None]
    return Grid(torch.cat([grid.scales_OG for grid in grids]), torch.cat(zeros) if zeros else None, grids[0].bits)


def fit(
    weight_OI: Tensor,
    bits: int,
    group: int,
    symmetric: bool = True,
    search: Search = "none",
    importance_I: Tensor | None = None,
    signs: Signs = "signed",
) -> Grid:
    """The grid of a matrix: each group's ends at its extreme weights, or where a search finds a smaller squared error.

    Args:
        weight_OI: float32.
        group: inputs that share a scale; divides I.
        search: "mse" tries `SHRINKS`, with both signs of a symmetric scale, and keeps the best of each group: a few large
            weights are clipped for a finer step.
        importance_I: weight of each input's squared error in the search (the Gram matrix's diagonal); even when None.
        signs: "positive" makes no scale below zero.
    """
    groups_OGS = weight_OI.unflatten(1, (-1, group))
    bottom_OG, top_OG = groups_OGS.amin(-1), groups_OGS.amax(-1)  # seven times as fast as aminmax
    candidates = _candidates(bottom_OG, top_OG, bits, symmetric, search, signs)
    best = next(candidates)
    if search == "none":
        return best
    importance_GS = None if importance_I is None else importance_I.unflatten(0, (-1, group))
    least_OG = _error(best, weight_OI, importance_GS)
    for other in candidates:
        error_OG = _error(other, weight_OI, importance_GS)
        better_OG = error_OG < least_OG
        least_OG = torch.where(better_OG, error_OG, least_OG)
        zeros_OG = None
        if best.zeros_OG is not None and other.zeros_OG is not None:
            zeros_OG = torch.where(better_OG, other.zeros_OG, best.zeros_OG)
        best = Grid(torch.where(better_OG, other.scales_OG, best.scales_OG), zeros_OG, bits)
    return best


def group_for(inputs: int, group_size: int | None) -> int:
    """Inputs of one group: `group_size`, all of them for -1, the default of this one matrix for None."""
    size = default_group_size([inputs]) if group_size is None else group_size
    return inputs if size == -1 else size


def default_group_size(widths: Iterable[int]) -> int:
    """The largest usual size that divides all widths of inputs, or -1 for one group to each output."""
    widths = set(widths)
    return next((size for size in USUAL_SIZES if not any(width % size for width in widths)), -1)


def check_groups(inputs: dict[str, int], group_size: int, where: str) -> None:
    """Every matrix can be cut into groups of `group_size` inputs.

    Args:
        inputs: width of each matrix's input by its name.

    Raises:
        SettingError: names the matrices that can't, and the usual sizes that fit all.
    """
    if group_size == -1:
        return
    wrong = {name: width for name, width in inputs.items() if width % group_size}
    if not wrong:
        return
    fitting = [str(size) for size in USUAL_SIZES if not any(width % size for width in inputs.values())]
    names = sorted({name.partition(".")[2].partition(".")[2] or name for name in wrong})
    widths = ", ".join(map(str, sorted(set(wrong.values()))))
    raise SettingError(
        f"{where}: {group_size} does not divide the inputs ({widths}) of {len(wrong)} matrices ({', '.join(names)}); "
        f"use {' or '.join([*fitting, '-1'])} (-1: one group to each output)"
    )


def _candidates(bottom_OG: Tensor, top_OG: Tensor, bits: int, symmetric: bool, search: Search, signs: Signs) -> Iterator[Grid]:
    """The grid that reaches both extremes first, then those that a search tries."""
    half = 1 << (bits - 1)
    if symmetric:
        signed = signs == "signed"
        extreme_OG = torch.where(-bottom_OG > top_OG, bottom_OG, top_OG)
        scales_OG = extreme_OG / -half if signed else torch.maximum(bottom_OG / -half, top_OG / (half - 0.5))
        for shrink in SHRINKS if search == "mse" else (1.0,):
            yield Grid(_stored(scales_OG * shrink), None, bits)
            if search == "mse" and signed:
                yield Grid(_stored(scales_OG * -shrink), None, bits)
        return
    bottom_OG, top_OG = bottom_OG.clamp(max=0.0), top_OG.clamp(min=0.0)  # zero is on the grid: pruned weights stay zero
    for shrink in SHRINKS if search == "mse" else (1.0,):
        scales_OG = _stored((top_OG - bottom_OG) * (shrink / (2 * half - 1)))
        zeros_OG = (-half - bottom_OG * shrink / scales_OG).round_().clamp_(-half, half - 1)
        yield Grid(scales_OG, zeros_OG, bits)


def _stored(scales_OG: Tensor) -> Tensor:
    """What bfloat16 keeps of scales; 1 for a group of zeros, or of weights too small to divide by."""
    rounded_OG = scales_OG.bfloat16().float()
    return rounded_OG.masked_fill_(rounded_OG.abs() < torch.finfo(torch.float32).tiny, 1.0)


def _error(grid: Grid, weight_OI: Tensor, importance_GS: Tensor | None) -> Tensor:
    """Squared error of rounding in each group, (O, G)."""
    error_OGS = (grid.values(grid.codes(weight_OI)) - weight_OI).square_().unflatten(1, (grid.scales_OG.shape[1], -1))
    return error_OGS.sum(-1) if importance_GS is None else torch.einsum("ogs,gs->og", error_OGS, importance_GS)
