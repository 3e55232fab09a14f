"""The number format of a training step's matrix products.

fp32 is the reference. bf16 is mixed precision (Micikevicius and others, arXiv 1710.03740): matrix products in bfloat16 under
PyTorch's autocast; weights, gradients and the optimizer's state stay in float32, so small updates are not rounded away. bfloat16
has float32's exponent, so no loss scaling is needed.
"""

from __future__ import annotations

from typing import Annotated

from shoestring.choice import Choice, OneOf, Table

FP32 = Choice("fp32", "float32", "matrix products in float32, as everything else", "")
BF16 = Choice(
    "bf16",
    "bfloat16",
    "matrix products in bfloat16, master weights in float32",
    row="T4",
    paper="1710.03740",
    saves=("computation", "memory"),
)
PRECISIONS = Table("Training.precision", FP32, BF16, about=__doc__)
"""Each stands for the name of the PyTorch type in which matrices are multiplied."""

Precision = Annotated[str, OneOf(PRECISIONS)]


def usual(device: str) -> Precision:
    """What to train in when nothing says."""
    return "bf16" if device == "cuda" else "fp32"
