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

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shoestring.architecture import ModelConfig, Slot
from shoestring.architecture.counts import matrices, passing
from shoestring.compress import finite
from shoestring.compress.restart import Restart
from shoestring.compress.solution import Group, Solution, install
from shoestring.model import Block, Transformer
from shoestring.model.forms import build
from shoestring.model.inputs import Inputs
from shoestring.progress import Progress, silent

CHUNK_BYTES = 1 << 30
"""Activations of one block that a chunk may hold. A constant, not a share of this machine's memory: chunks decide the order of
sums, and results should not depend on where they were made."""


class Method(Protocol):
    """What one technique does with a group of matrices: all that it needs to bring to the walk.

    It may also have `refine(block, x_NTC, y_NTC)`: called with gradients on when a block is solved, with what goes into it and
    what came out of it before.
    """

    def statistic(self, x_NI: Tensor) -> Tensor:
        """What to gather of some inputs; sums over tokens, so that chunks add up."""

    def solve(self, group: Group) -> Mapping[str, Solution]:
        """Solutions for matrices of the group; those without one stay as they are: {} has only looked."""


class Blocks(Protocol):
    """Where the blocks are that a walk goes through: in a model in memory, in files, on another device."""

    @property
    def config(self) -> ModelConfig:
        """Of the model that they are of."""

    def embed(self, tokens_NT: Tensor) -> tuple[Tensor, Inputs]:
        """What the first block reads, float32 (N, T, C), and what all blocks share, for one row."""

    def taken(self, layer: int) -> AbstractContextManager[Block]:
        """A block, in memory inside; what was put into it is kept afterwards."""


@dataclass(frozen=True, slots=True)
class Live:
    """The blocks of a model in memory."""

    model: Transformer

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return self.model.config

    def embed(self, tokens_NT: Tensor) -> tuple[Tensor, Inputs]:
        tokens_NT = tokens_NT.to(self.model.embedding.weight.device)
        inputs = self.model.prepared(tokens_NT[:1])
        return self.model.embed(tokens_NT, inputs).float(), inputs

    def taken(self, layer: int) -> AbstractContextManager[Block]:
        blocks: Any = self.model.blocks
        return nullcontext(blocks[layer])


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
    blocks: Blocks,
    tokens_NT: Tensor,
    method: Method,
    *,
    precision: str = "fp32",
    restart: Restart | None = None,
    progress: Progress = silent,
    chunk_bytes: int = CHUNK_BYTES,
) -> list[dict[str, Any]]:
    """Go through all blocks with some tokens, and solve their matrices in the order of computation; the embedding and the head
    are left alone.

    Args:
        blocks: `Live(model)`, or where else they are; changed in place. Their weights are float32.
        tokens_NT: calibration tokens, int64.
        precision: of the blocks' products in the walk: "fp32", or "bf16" through autocast. Statistics are summed in float32.
        restart: where to go on after a kill, and to keep what is done.
        progress: told after each block.

    Returns:
        The solver's report for each matrix that it solved, with its `name` and its `weights` (how many it has).

    Raises:
        NotFinite: a weight, a statistic or a solution that is NaN or infinite; the matrix is named.
    """
    x_NTC, inputs = blocks.embed(tokens_NT)
    first, count, reports = 0, len(blocks.config.layers), []
    if restart is not None and (kept := restart.load()) is not None:
        first, x_NTC, reports = kept.blocks, kept.x_NTC.to(x_NTC.device), kept.reports
        for layer in range(first):
            with blocks.taken(layer) as block:
                for name, solution in kept.solutions.items():
                    if name.startswith(prefix := f"blocks.{layer}."):
                        install(block, name.removeprefix(prefix), solution)
        progress(f"going on at block {first + 1} of {count}", first / count)
    rows = max(1, chunk_bytes // (4 * tokens_NT.shape[1] * passing(blocks.config)))
    for layer in range(first, count):
        with blocks.taken(layer) as block:
            solving = _Solving(block, layer, blocks.config, method, x_NTC, rows)
            solving.run(inputs, precision)
        reports += solving.reports
        if restart is not None:
            restart.done(layer + 1, x_NTC, solving.solutions, reports, count)
        progress(f"block {layer + 1} of {count}", (layer + 1) / count)
    return reports


class _Enough(Exception):
    """A chunk has reached an input that the other chunks must reach too before it can be solved."""


class _Solving:
    """One block being solved: stands before the first matrix of each group that shares an input."""

    def __init__(self, block: Block, layer: int, config: ModelConfig, method: Method, x_NTC: Tensor, rows: int) -> None:
        self.block, self.prefix, self.method = block, f"blocks.{layer}.", method
        self.groups: dict[str, dict[str, Slot]] = {}
        for slot in matrices(config.layers[layer], config.width):
            self.groups.setdefault(slot.reads, {})[slot.name] = slot
        self.x_NTC, self.chunks = x_NTC, list(x_NTC.split(rows))
        self.solutions: dict[str, Solution] = {}
        self.reports: list[dict[str, Any]] = []
        self.total: Tensor | None = None
        self.summed = 0
        self.seen: set[str] = set()

    def run(self, inputs: Inputs, precision: str) -> None:
        """Solve, and replace `x_NTC` by the block's output, in place."""
        refine = getattr(self.method, "refine", None)
        before_NTC = None if refine is None else self.x_NTC.clone()
        after_NTC = None if before_NTC is None else torch.cat([self._pass(each, inputs, precision) for each in self.chunks])
        # Chunks take turns: between two visits of one chunk each of the others has made one, so none is counted twice.
        waiting, hooks = list(self.chunks), self._hooks()
        try:
            while waiting:
                chunk_NTC = waiting.pop(0)
                try:
                    chunk_NTC.copy_(self._pass(chunk_NTC, inputs, precision))
                except _Enough:
                    waiting.append(chunk_NTC)
        finally:
            for hook in hooks:
                hook.remove()
        for name, solution in self.solutions.items():
            install(self.block, name.removeprefix(self.prefix), solution)
        if refine is not None and before_NTC is not None:
            with torch.enable_grad():
                refine(self.block, before_NTC, after_NTC)
            for chunk_NTC, from_NTC in zip(self.chunks, before_NTC.split(len(self.chunks[0]))):
                chunk_NTC.copy_(self._pass(from_NTC, inputs, precision))

    def _pass(self, x_NTC: Tensor, inputs: Inputs, precision: str) -> Tensor:
        with casting(precision, x_NTC.device.type):
            found: Tensor = self.block(x_NTC, inputs)
        return found

    def _hooks(self) -> list[RemovableHandle]:
        return [
            self.block.get_submodule(next(iter(slots))).register_forward_pre_hook(self._before(slots))
            for slots in self.groups.values()
        ]

    def _before(self, slots: dict[str, Slot]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        first = next(iter(slots))

        def before(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if first in self.seen:
                return
            # Autocast is for the pass alone: statistics and solvers work in float32.
            with torch.autocast(arguments[0].device.type, enabled=False):
                found = self.method.statistic(arguments[0].flatten(0, -2))
                self.total = found if self.total is None else self.total.add_(found)
                self.summed += 1
                if self.summed < len(self.chunks):
                    raise _Enough
                self._solve(slots, self.total)
            self.total, self.summed = None, 0
            self.seen.add(first)

        return before

    def _solve(self, slots: dict[str, Slot], statistic: Tensor) -> None:
        named = {self.prefix + name: slot for name, slot in slots.items()}
        layers: dict[str, Any] = {name: self.block.get_submodule(slot.name) for name, slot in named.items()}
        weights: dict[str, Tensor] = {name: layer.weight_rows().float() for name, layer in layers.items()}
        advice = "the model computes no finite numbers on the calibration text: try precision: fp32, or an earlier checkpoint"
        finite.check(f"{next(iter(weights))}: ", {"what it multiplies": statistic}, advice)
        finite.check("", weights, "the checkpoint is damaged, or its training diverged: take an earlier one")
        found = self.method.solve(Group(weights, statistic, self.x_NTC.shape[0] * self.x_NTC.shape[1], named))
        for name, solution in found.items():
            finite.check(f"{name}: its ", solution.parts, "its weights are too large for what they are stored in")
            finite.check_report(name, solution.report)
            # The pass under way goes on with the old matrix: give it the new weight.
            layers[name].weight.copy_(build(solution.form, solution.settings, solution.parts).weight_rows())
            self.reports.append({"name": name, "weights": weights[name].numel(), **solution.report})
        self.solutions.update(found)


def casting(precision: str, device: str) -> AbstractContextManager[Any]:
    """The context in which blocks are run: autocast for "bf16", nothing for "fp32"."""
    return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False) if precision == "bf16" else nullcontext()


def fast_precision(device: torch.device) -> str:
    """The precision in which this device multiplies fastest without loss of range: bf16 where it has instructions for it."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
