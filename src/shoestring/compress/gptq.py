"""GPTQ (arXiv 2210.17323): round the columns of a matrix one after another, each column's error made good by those to come.

For outputs W x over inputs with Gram matrix H, what a rounded column loses is best repaired by moving the columns that are still
free along H's inverse. With H^-1 = U^T U (U upper triangular), for column i:

    q = round(w_i);  e = w_i - q;  w_j -= e * U_ij / U_ii  for all j > i

Columns go in order of falling H_ii (act-order); groups keep the scale of their place in the matrix (static groups), so that no
index of groups is stored. What a grid loses before these moves says little of what it loses after them: two are tried, and each
matrix keeps the better (`better`). In a pruned matrix the zeros are held and their error is passed on as well: the joint form of
SparseGPT (arXiv 2301.00774, section 3.5) with a mask that is given.

O outputs, I inputs, G groups of inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from shoestring.compress import cost, grid
from shoestring.compress.base import Calibrated, Count, Note
from shoestring.compress.factor import Factor, factor
from shoestring.compress.grid import Grid
from shoestring.compress.quantizer import Quantizer, packed_solution
from shoestring.compress.solution import Group, Solution
from shoestring.compress.walk import gram
from shoestring.measure import Hardware
from shoestring.model.forms import PRUNED, nonzero
from shoestring.technique import Prediction, Sketch

CLEARLY = 0.9
"""Share of a searched grid's error below which one that reaches the extremes takes its place. Closer errors do not tell: on
SmolLM2-135M at 4 bits the smaller one chose the extremes for half of the matrices, and lost .058 bits per byte instead of .047.
In nine cases (that model and two small ones, 2 to 4 bits) this share lost no more than the better of both grids used throughout,
but for .001 nats in one."""


def round_columns(weight_OI: Tensor, factor: Factor, grid: Grid, keep_OI: Tensor | None = None, block: int = 128) -> Tensor:
    """The codes of a matrix, int8 (O, I): each column's rounding error is made good by the columns after it.

    Args:
        weight_OI: float32.
        grid: where the weights may lie; it stays as it is.
        keep_OI: False where a weight is pruned and must stay zero.
        block: columns whose errors are passed on to the rest of the matrix at one time; the result does not depend on it.
    """
    order_I = factor.order_I
    columns = grid.scales_OG.shape[1]
    group_I = order_I // (weight_OI.shape[1] // columns)
    # Transposed, a column is contiguous: 0.05 ms instead of 6 ms a column.
    work_IO = weight_OI.T[order_I].contiguous()
    codes_IO = torch.empty_like(work_IO, dtype=torch.int8)
    scales_GO = grid.scales_OG.T.contiguous()
    zeros_GO = None if grid.zeros_OG is None else grid.zeros_OG.T.contiguous()
    keep_IO = None if keep_OI is None else keep_OI.T[order_I].contiguous()
    with one_thread(work_IO.device):
        for begin in range(0, len(order_I), block):
            end = min(begin + block, len(order_I))
            error_IO = _round_block(
                work_IO[begin:end],
                codes_IO[begin:end],
                factor.unit_II[begin:end, begin:end],
                scales_GO[group_I[begin:end]],
                None if zeros_GO is None else zeros_GO[group_I[begin:end]],
                None if keep_IO is None else keep_IO[begin:end],
                grid,
            )
            work_IO[end:].addmm_(factor.unit_II[begin:end, end:].T, error_IO, alpha=-1)
    codes_OI = torch.empty_like(codes_IO)
    codes_OI[order_I] = codes_IO
    return codes_OI.T.contiguous()


def energy(matrix_OI: Tensor, gram_II: Tensor) -> Tensor:
    """Summed square of each output over the calibration, (O,): the diagonal of M H M^T."""
    return ((matrix_OI @ gram_II) * matrix_OI).sum(1)


def relative_error(weight_OI: Tensor, changed_OI: Tensor, gram_II: Tensor) -> float:
    """Squared error of the outputs over their squared size: trace(D H D^T) / trace(W H W^T)."""
    return _share(energy(weight_OI - changed_OI, gram_II), energy(weight_OI, gram_II))


def solve(
    weight_OI: Tensor, found: Factor, gram_II: Tensor, grids: Sequence[Grid], keep_OI: Tensor | None = None, block: int = 128
) -> list[tuple[Tensor, Tensor]]:
    """Round a matrix onto each of some grids.

    Outputs do not depend on each other, so the grids are tried as if they were more outputs, in one loop.

    Returns:
        For each grid the codes, int8 (O, I), and the squared error that each output is left with, (O,).
    """
    count = len(grids)
    every, tried_OI = grid.stacked(grids), weight_OI.repeat(count, 1)
    codes_OI = round_columns(tried_OI, found, every, None if keep_OI is None else keep_OI.repeat(count, 1), block)
    error_O = energy(tried_OI.sub_(every.values(codes_OI)), gram_II)
    return list(zip(codes_OI.chunk(count), error_O.chunk(count)))


def better(errors: Sequence[float]) -> int:
    """Which grid a matrix keeps: the last, unless an earlier one leaves less than `CLEARLY` of its error; the least of these."""
    least = min(range(len(errors)), key=errors.__getitem__)
    return least if errors[least] < CLEARLY * errors[-1] else len(errors) - 1


def _share(lost_O: Tensor, whole_O: Tensor) -> float:
    return (lost_O.sum() / whole_O.sum().clamp_min(torch.finfo(torch.float32).tiny)).item()


def _round_block(
    work_IO: Tensor,
    codes_IO: Tensor,
    unit_II: Tensor,
    scales_IO: Tensor,
    zeros_IO: Tensor | None,
    keep_IO: Tensor | None,
    grid: Grid,
) -> Tensor:
    """Round the columns of one block in turn, in place; their errors, (I, O)."""
    error_IO = torch.empty_like(work_IO)
    inverse_IO = scales_IO.reciprocal()
    for i in range(len(work_IO)):
        column_O = work_IO[i]
        code_O = torch.mul(column_O, inverse_IO[i]).round_()
        if zeros_IO is not None:
            code_O.add_(zeros_IO[i])
        code_O.clamp_(grid.lowest, grid.highest)
        if keep_IO is not None:
            code_O = torch.where(keep_IO[i], code_O, 0.0 if zeros_IO is None else zeros_IO[i])
        codes_IO[i] = code_O
        if zeros_IO is not None:
            code_O.sub_(zeros_IO[i])
        torch.addcmul(column_O, code_O, scales_IO[i], value=-1, out=error_IO[i])
        work_IO[i + 1 :].addr_(unit_II[i, i + 1 :], error_IO[i], alpha=-1)
    return error_IO


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """A loop of many small operations runs on one thread: the others would cost more in waiting for each other than they do.

    Measured on two busy cores, 3072 x 576: 0.05 CPU-seconds instead of 0.2 to 3.7.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class GPTQMethod:
    """GPTQ's part of the calibration walk."""

    settings: GPTQ
    note: Note

    def statistic(self, x_NI: Tensor) -> Tensor:
        """The Gram matrix."""
        return gram(x_NI)

    def solve(self, group: Group) -> dict[str, Solution]:
        """Codes for all matrices of the group at one time: rows do not depend on each other, so they are stacked."""
        wanted, gram_II = self.settings, group.statistic
        found = factor(gram_II, wanted.act_order, wanted.damping)
        if found.double:
            self.note(f"gptq: float32 did not suffice for {next(iter(group.weights))}; its Gram matrix was factored in float64")
        weight_OI = torch.cat(list(group.weights.values()))
        size = grid.group_for(weight_OI.shape[1], wanted.group_size)
        grids = [
            grid.fit(weight_OI, wanted.bits, size, wanted.symmetric, search, gram_II.diagonal(), wanted.scales)
            for search in wanted.searches
        ]
        kept = {name: self._kept(weight) for name, weight in group.weights.items()}
        keep_OI = None
        if any(mask is not None for mask in kept.values()):
            whole = [torch.ones_like(w, dtype=torch.bool) if (k := kept[n]) is None else k for n, w in group.weights.items()]
            keep_OI = torch.cat(whole)
        solved = solve(weight_OI, found, gram_II, grids, keep_OI, wanted.block)
        whole_O = energy(weight_OI, gram_II)
        solutions, row = {}, 0
        for name, weight in group.weights.items():
            rows = slice(row, row + len(weight))
            errors = [_share(error_O[rows], whole_O[rows]) for _, error_O in solved]
            chosen = better(errors)
            own, codes = grids[chosen].rows(rows), solved[chosen][0][rows]
            report: dict[str, Any] = {"error": errors[chosen], "search": wanted.searches[chosen]}
            solutions[name] = packed_solution(codes, own, {**report, "zeros_kept": kept[name] is not None})
            row = rows.stop
        return solutions

    def _kept(self, weight_OI: Tensor) -> Tensor | None:
        """Where a matrix is not pruned; None when it isn't pruned, or its zeros need not stay."""
        if self.settings.preserve_zeros is False:
            return None
        return nonzero(weight_OI, PRUNED if self.settings.preserve_zeros == "auto" else 0.0)


class GPTQ(Quantizer, Calibrated):
    """Round weights column by column, each column's error made good by those after it; the zeros of pruned matrices stay.

    Columns go in order of the size of their inputs (act_order) while groups keep their place (static groups), so that the
    result is stored, and served, as any group-wise integer format.
    """

    name: ClassVar[str] = "gptq"
    row: ClassVar[str] = "Q1"
    paper: ClassVar[str] = "2210.17323"
    saves: ClassVar[tuple[str, ...]] = ("memory", "storage")
    version: ClassVar[int] = 4

    act_order: bool = True
    """Columns with large inputs first."""
    search: Literal["best"] | grid.Search = "best"
    """none: each group's scale reaches its extreme; mse: it has the smallest squared error, inputs weighted by their size; best:
    both are solved, and each matrix keeps mse unless none leaves clearly less error in the end."""
    damping: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of the Gram matrix's mean diagonal that is added to it."""
    block: Count = 128
    """Columns whose errors are passed on at one time; speed only."""
    preserve_zeros: Literal["auto"] | bool = "auto"
    """Keep the zeros of matrices: auto, of those with more than 1 % of them."""

    @property
    def searches(self) -> tuple[grid.Search, ...]:
        """How the scales of each grid that is tried are found."""
        return ("none", "mse") if self.search == "best" else (self.search,)

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """One pass over the calibration, the Gram matrices, and the columns in turn."""
        bits = self._bits(sketch)
        sparsity = 0.0 if self.preserve_zeros is False else sketch.sparsity
        passes = 3.0 if self.search == "none" else cost.SEARCH_PASSES
        return cost.predict_walk(
            sketch, hardware, self.samples, self.length, self.precision, bits, sparsity, grids=self._grids(), passes=passes
        )

    def _method(self, note: Note) -> GPTQMethod:
        return GPTQMethod(self, note)

    def _grids(self) -> int:
        return len(self.searches)
