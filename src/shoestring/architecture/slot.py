"""A parameter of a model before it exists: name, shape, and what each dimension counts.

Everything that must know the parameters of a model is derived from its slots and never listed again: their number, operations
and bytes, the first draw, weight decay, adapters' and quantizers' targets, Gram matrices, sharding, names on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

Axis = Literal["width", "heads", "kv_heads", "head_size", "inner", "latent", "state", "experts", "vocabulary", "positions"]
"""What a dimension counts; those of heads count their elements, heads x head_size."""

Draw = Literal["normal", "into_stream", "ones", "zeros"]
"""How a parameter begins: with deviation 0.02; the same divided by the root of twice the layers; a constant."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter: a matrix when something reads through it, else an embedding, a norm or another vector.

    Attributes:
        name: of the module that holds it as `weight`, such as "mixer.query" in a block, "blocks.3.mixer.query" in a model.
        shape: (outputs, inputs) of a matrix, (experts, outputs, inputs) of many, (width,) of a norm.
        axes: what each dimension counts.
        reads: the input that it multiplies; matrices with equal `reads` multiply the same tensor and share a Gram matrix. ""
            for what is no matrix.
        fed_by: the norm or matrix whose outputs are its inputs, one for one, so that a scale can move between them; "" when
            something that is not linear stands between.
        bias: whether a vector (outputs,) beside it is added to what comes out.
        active: share of it that one token passes through (experts).
        draw: how it begins.
        shares: the slot whose tensor it is too (a tied head).
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    reads: str = ""
    fed_by: str = ""
    bias: bool = False
    active: float = 1.0
    draw: Draw = "normal"
    shares: str = ""

    @property
    def outputs(self) -> int:
        """Of a matrix."""
        return self.shape[-2]

    @property
    def inputs(self) -> int:
        """Of a matrix."""
        return self.shape[-1]

    @property
    def size(self) -> int:
        """Numbers in it, the bias apart."""
        return prod(self.shape)

    @property
    def numbers(self) -> int:
        """All numbers that it adds to a model."""
        return (0 if self.shares else self.size) + (self.outputs if self.bias else 0)

    def inside(self, place: str, feeds: str = "") -> Slot:
        """The same as a part of something: names are led by `place`.

        What reads the part's own input, "input", is `fed_by` what `feeds` that.
        """
        fed_by = feeds if self.reads == "input" else self.fed_by and f"{place}.{self.fed_by}"
        reads = self.reads and f"{place}.{self.reads}"
        return replace(self, name=f"{place}.{self.name}", reads=reads, fed_by=fed_by)


def matrix(name: str, outputs: int, inputs: int, axes: tuple[Axis, Axis], reads: str = "input", **more: Any) -> Slot:
    """The slot of a matrix."""
    return Slot(name, (outputs, inputs), axes, reads, **more)
