"""What techniques that round weights to integers share: bits, groups and scales, and how they fit a model."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field
from torch import Tensor

from shoestring.compress import cost, grid
from shoestring.compress.base import Compression, Note, input_widths
from shoestring.compress.solution import Solution
from shoestring.model import Transformer
from shoestring.model.forms.packed import packed
from shoestring.technique import Sketch


def packed_solution(codes_OI: Tensor, found: grid.Grid, report: dict[str, Any]) -> Solution:
    """A matrix as packed codes, scales in bfloat16."""
    parts = packed(codes_OI, found.scales_OG.bfloat16(), found.zeros_OG, found.bits)
    return Solution("packed", parts, {"bits": found.bits}, {**report, "zeros": found.zeros_in(codes_OI)})


def readers(bits: int, group_size: int) -> str | None:
    """Which usual readers do not open a file of such weights, in one line; None when all do (docs/compress.md has a table)."""
    said = []
    if bits not in (2, 4, 8):
        said.append(f"{bits} bits are read by compressed-tensors 0.18 or newer, and as other numbers by older ones")
    if bits not in (4, 8):
        said.append("vLLM's own kernels have 4 and 8 bits only")
    elif group_size not in (-1, *grid.USUAL_SIZES):
        said.append(f"vLLM's kernels for GPUs know groups of {', '.join(map(str, grid.USUAL_SIZES))}, not {group_size}")
    return "; ".join(said) or None


def _group_size(size: int) -> int:
    if size != -1 and size < 1:
        raise ValueError("must be a number of inputs, or -1 for one group to each output")
    return size


Bits = Annotated[int, Field(ge=2, le=8)]
GroupSize = Annotated[int, AfterValidator(_group_size)]


class Quantizer(Compression):
    """A technique that stores the blocks' matrices as groups of integers with a scale each."""

    bits: Bits = 4
    """Of a weight."""
    group_size: GroupSize | None = None
    """Inputs that share a scale; -1: all, one group to each output. The largest of 128, 64 and 32 that divides the inputs of
    every matrix when not given."""
    symmetric: bool = True
    """False: each group has a zero point too."""
    scales: grid.Signs = "signed"
    """signed: a scale takes the sign that makes a symmetric group's step smallest. positive: none is below zero, for readers
    that need it."""

    def check(self, model: Transformer) -> None:
        super().check(model)
        if self.group_size is not None:
            grid.check_groups(input_widths(model.config), self.group_size, f"{self.name}.group_size")

    def fitted(self, model: Transformer, note: Note) -> Self:
        """The same with a group size; the note says what does not read the result."""
        size = self.group_size or grid.default_group_size(input_widths(model.config).values())
        if lacking := readers(self.bits, size):
            note(f"{self.name}: {lacking}")
        if self.group_size is not None:
            return self
        each = "one group to each output" if size == -1 else f"groups of {size}"
        usual = ", ".join(map(str, grid.USUAL_SIZES))
        why = f"none of {usual}" if size == -1 else f"the largest of {usual} that"
        note(f"{self.name}: {each}, {why} divides the inputs of every matrix; group_size chooses another")
        return self.model_copy(update={"group_size": size})

    def _bits(self, sketch: Sketch) -> cost.Bits:
        """How weights will be stored.

        Raises:
            SettingError: a group size that does not divide the inputs of the sketch's model.
        """
        size = self.group_size
        if sketch.model is not None:
            widths = input_widths(sketch.model)
            size = size or grid.default_group_size(widths.values())
            grid.check_groups(widths, size, f"{self.name}.group_size")
        return cost.Bits(self.bits, size or grid.USUAL_SIZES[0], self.symmetric)
