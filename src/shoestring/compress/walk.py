"""The walk that layer-by-layer compression shares: block by block, each sees what the compressed blocks before it really give.

Calibration tokens are embedded once; then a single forward pass through each block does everything. Just before a matrix
multiplies, the statistic of its input is taken (once for all matrices that share the input: query, key and value; gate and
up), the solver changes the weights, and the pass goes on with the changed ones. So each matrix is fitted to the inputs that it
will meet, inside a block too, as GPTQ's "true sequential" order does with several passes.

Where the calibration is too large for one block's activations to be in memory at one time, it goes in chunks: each chunk
stops at the first input that still lacks other chunks, and starts its block again after it is solved (about two passes).

N sequences, T tokens, C width, O outputs, I inputs of a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shoestring.architecture.counts import passing
from shoestring.compress import finite
from shoestring.compress.restart import Restart
from shoestring.model import Block, Transformer
from shoestring.model.inputs import Inputs
from shoestring.model.linear import linears
from shoestring.progress import Progress, silent

CHUNK_BYTES = 1 << 30
"""Activations of one block that a chunk may hold. A constant, not a share of this machine's memory: chunks decide the order of
sums, and results should not depend on where they were made."""


@dataclass(frozen=True, slots=True)
class Group:
    """Matrices that multiply one input, with what is known of that input.

    Attributes:
        weights: float32 (O, I) each, by dotted name such as "blocks.3.mixer.query".
        statistic: of the input over all calibration tokens; with `gram`, the (I, I) sum of x x^T.
        tokens: how many were summed.
    """

    weights: dict[str, Tensor]
    statistic: Tensor
    tokens: int


@dataclass(frozen=True, slots=True)
class Solution:
    """What becomes of one matrix.

    Attributes:
        parts: tensors that `Method.install` makes the new layer from; restart files keep them.
        report: figures about it, such as its relative error.
    """

    parts: dict[str, Tensor]
    report: dict[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """What one technique does with a group of matrices: all that it needs to bring to the walk."""

    def statistic(self, x_NI: Tensor) -> Tensor:
        """What to gather of some inputs; sums over tokens, so that chunks add up."""

    def solve(self, group: Group) -> dict[str, Solution]:
        """A solution for each matrix of the group."""

    def install(self, linear: nn.Linear, parts: dict[str, Tensor]) -> nn.Module:
        """The layer that takes a linear layer's place, or that layer itself with its weight changed."""


def gram(x_NI: Tensor, panel: int = 256) -> Tensor:
    """The Gram matrix of some inputs, sum of x x^T over N, float32 (I, I); only half is multiplied, it is symmetric."""
    x_NI = x_NI.float()
    width = x_NI.shape[1]
    gram_II = torch.empty(width, width, device=x_NI.device)
    for begin in range(0, width, panel):
        end = min(begin + panel, width)
        torch.mm(x_NI[:, begin:end].T, x_NI[:, :end], out=gram_II[begin:end, :end])
        gram_II[:begin, begin:end] = gram_II[begin:end, :begin].T
    return gram_II


def squares(x_NI: Tensor) -> Tensor:
    """Sum of each input's squares over N, float32 (I,): the Gram matrix's diagonal."""
    return x_NI.float().square().sum(0)


@torch.no_grad()
def walk(
    model: Transformer,
    tokens_NT: Tensor,
    method: Method,
    *,
    precision: str = "fp32",
    restart: Restart | None = None,
    progress: Progress = silent,
    chunk_bytes: int = CHUNK_BYTES,
) -> list[dict[str, Any]]:
    """Compress the matrices of all blocks, in the order of computation; the embedding and the head are left alone.

    Args:
        model: changed in place. Its weights are float32.
        tokens_NT: calibration tokens, int64.
        precision: of the blocks' products in the walk: "fp32", or "bf16" through autocast. Statistics are summed in float32.
        restart: where to go on after a kill, and to keep what is done.
        progress: told after each block.

    Returns:
        The solver's report for each matrix, with its `name` and its `weights` (how many it has).

    Raises:
        NotFinite: a weight, a statistic or a solution that is NaN or infinite; the matrix is named.
    """
    device = next(model.parameters()).device
    tokens_NT = tokens_NT.to(device)
    inputs = model.prepared(tokens_NT[:1])
    x_NTC = model.embed(tokens_NT, inputs).float()
    first, reports = 0, []
    if restart is not None and (kept := restart.load()) is not None:
        first, x_NTC, reports = kept.blocks, kept.x_NTC.to(device), kept.reports
        for name, parts in kept.parts.items():
            put(model, name, method.install(model.get_submodule(name), parts))  # type: ignore[arg-type]
        progress(f"going on at block {first + 1} of {len(model.blocks)}", first / len(model.blocks))
    rows = max(1, chunk_bytes // _bytes_per_row(model, tokens_NT.shape[1]))
    for layer in range(first, len(model.blocks)):
        solved = _solve_block(model, layer, inputs, x_NTC, rows, method, precision)
        for name, solution in solved.solutions.items():
            weights = model.get_submodule(name).weight.numel()  # type: ignore[union-attr,operator]
            reports.append({"name": name, "weights": weights, **solution.report})
            put(model, name, solved.layers[name])
        if restart is not None:
            became = {name: solution.parts for name, solution in solved.solutions.items()}
            restart.done(layer + 1, x_NTC, became, reports, len(model.blocks))
        progress(f"block {layer + 1} of {len(model.blocks)}", (layer + 1) / len(model.blocks))
    return reports


class _Enough(Exception):
    """A chunk has reached an input that the other chunks must reach too before it can be solved."""


class _Solving:
    """One block being solved: stands before the first matrix of each group that shares an input."""

    def __init__(self, block: Block, prefix: str, groups: list[list[str]], method: Method, chunks: int, tokens: int) -> None:
        self.block, self.prefix, self.groups, self.method = block, prefix, groups, method
        self.chunks, self.tokens = chunks, tokens
        self.solutions: dict[str, Solution] = {}
        self.layers: dict[str, nn.Module] = {}
        self.total: Tensor | None = None
        self.summed = 0

    def hooks(self) -> list[RemovableHandle]:
        """Put in the block; the caller removes them."""
        return [self.block.get_submodule(names[0]).register_forward_pre_hook(self._before(names)) for names in self.groups]

    def _before(self, names: list[str]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def before(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if self.prefix + names[0] in self.solutions:
                return
            # Autocast is for the pass alone: statistics and solvers work in float32.
            with torch.autocast(arguments[0].device.type, enabled=False):
                found = self.method.statistic(arguments[0].flatten(0, -2))
                self.total = found if self.total is None else self.total.add_(found)
                self.summed += 1
                if self.summed < self.chunks:
                    raise _Enough
                self._solve(names, self.total)
            self.total, self.summed = None, 0

        return before

    def _solve(self, names: list[str], statistic: Tensor) -> None:
        modules = {self.prefix + name: self.block.get_submodule(name) for name in names}
        weights: dict[str, Tensor] = {name: linear.weight.float() for name, linear in modules.items()}  # type: ignore[misc,operator,union-attr]
        advice = "the model computes no finite numbers on the calibration text: try precision: fp32, or an earlier checkpoint"
        finite.check(f"{next(iter(weights))}: ", {"what it multiplies": statistic}, advice)
        finite.check("", weights, "the checkpoint is damaged, or its training diverged: take an earlier one")
        found = self.method.solve(Group(weights, statistic, self.tokens))
        for name, linear in modules.items():
            finite.check(f"{name}: its ", found[name].parts, "its weights are too large for what they are stored in")
            finite.check_report(name, found[name].report)
            layer = self.layers[name] = self.method.install(linear, found[name].parts)  # type: ignore[arg-type]
            if layer is not linear:  # the pass under way goes on with the old layer: give it the new weight
                linear.weight.copy_(weight_of(layer))  # type: ignore[union-attr,operator]
        self.solutions.update(found)


def _solve_block(
    model: Transformer, layer: int, inputs: Inputs, x_NTC: Tensor, rows: int, method: Method, precision: str
) -> _Solving:
    """Solve one block's matrices, and replace `x_NTC` by its output, in place."""
    block: Block = model.blocks[layer]  # type: ignore[assignment]
    groups = shared_inputs(block, x_NTC[:1, :2], model.prepared(torch.zeros(1, 2, dtype=torch.long, device=x_NTC.device)))
    # Chunks take turns: between two visits of one chunk each of the others has made one, so none is counted twice.
    waiting = list(x_NTC.split(rows))
    solving = _Solving(block, f"blocks.{layer}.", groups, method, len(waiting), x_NTC.shape[0] * x_NTC.shape[1])
    hooks = solving.hooks()
    try:
        while waiting:
            chunk_NTC = waiting.pop(0)
            try:
                with casting(precision, x_NTC.device.type):
                    out_NTC = block(chunk_NTC, inputs)
                chunk_NTC.copy_(out_NTC)
            except _Enough:
                waiting.append(chunk_NTC)
    finally:
        for hook in hooks:
            hook.remove()
    return solving


def shared_inputs(block: Block, x_BTC: Tensor, inputs: Inputs) -> list[list[str]]:
    """The names of a block's matrices, those that read the same tensor together, in order of computation."""
    seen: list[tuple[Tensor, list[str]]] = []

    def at(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def before(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            for tensor, names in seen:
                if tensor is arguments[0]:
                    names.append(name)
                    return
            seen.append((arguments[0], [name]))

        return before

    hooks = [module.register_forward_pre_hook(at(name)) for name, module in linears(block).items()]
    try:
        block(x_BTC, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [names for _, names in seen]


def casting(precision: str, device: str) -> AbstractContextManager[Any]:
    """The context in which blocks are run: autocast for "bf16", nothing for "fp32"."""
    return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False) if precision == "bf16" else nullcontext()


def fast_precision(device: torch.device) -> str:
    """The precision in which this device multiplies fastest without loss of range: bf16 where it has instructions for it."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def weight_of(module: nn.Module) -> Tensor:
    """The (O, I) weights that a linear layer, packed or not, multiplies with."""
    return module.weight if isinstance(module, nn.Linear) else module.dequantize()  # type: ignore[operator]


def matrices(model: Transformer) -> Iterable[tuple[str, nn.Module]]:
    """The matrices of all blocks with their dotted names, in order of computation."""
    for layer, block in enumerate(model.blocks):
        for name, module in linears(block).items():  # type: ignore[arg-type]
            yield f"blocks.{layer}.{name}", module


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Set the submodule of a dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _bytes_per_row(model: Transformer, length: int) -> int:
    """What one sequence takes while it goes through a block, float32."""
    return 4 * length * passing(model.config)
