"""LoRA (arXiv 2106.09685): learn a matrix's change as a product of two thin ones, the matrix itself frozen.

    y = x W^T + s (x A^T) B^T,    s = alpha / rank,  or alpha / sqrt(rank) in rsLoRA (arXiv 2312.03732, theorem 3.2)

A starts as uniform noise, B as zeros, so training begins at the model itself. W may be packed in few bits: gradients pass
through it to x (the form of QLoRA, arXiv 2305.14314). With `keep_zeros` the change of a pruned matrix is masked in training
and in merging alike, W + s (B A) * (W != 0): what is merged is what was trained, and stays as sparse as it was.

K inputs, N outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.errors import SettingError, nearest
from shoestring.model import PackedLinear, Transformer
from shoestring.tune.cost import matrices, must_be_low

PRUNED = 0.01
"""Share of zeros above which a matrix counts as pruned (as for `train.KeepZeros`)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What all adapters of a model share."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    """Share of the inputs that the adapter does not see at each step."""
    rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""

    @property
    def scale(self) -> float:
        """What the product of the two thin matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class LoRALinear(nn.Module):
    """A frozen linear layer, plain or packed, with a thin change beside it.

    Attributes:
        base: the layer. first: A, (R, K). second: B, (N, R).
        kept: True where the base's weight isn't zero, (N, K), when zeros are kept; None otherwise.
    """

    kept: Tensor | None

    def __init__(
        self, base: nn.Linear | PackedLinear, shape: Shape, generator: torch.Generator, keep_zeros: bool = False
    ) -> None:
        super().__init__()
        self.base, self.shape = base, shape
        self.in_features, self.out_features = base.in_features, base.out_features
        device = next(tensor.device for tensor in (*base.parameters(), *base.buffers()))
        bound = 1 / math.sqrt(self.in_features)
        noise = torch.rand(shape.rank, self.in_features, generator=generator) * 2 - 1
        self.first = nn.Parameter((noise * bound).to(device))
        self.second = nn.Parameter(torch.zeros(self.out_features, shape.rank, device=device))
        kept = base.weight != 0 if keep_zeros and isinstance(base, nn.Linear) else None
        if kept is not None and 1 - kept.float().mean().item() <= PRUNED:
            kept = None
        # Not saved: it follows from the base.
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = F.dropout(x, self.shape.dropout, self.training)
        if self.kept is not None:
            return self.base(x) + F.linear(seen, self.change().to(x.dtype))
        first, second = self.first.to(x.dtype), self.second.to(x.dtype)
        return self.base(x) + F.linear(F.linear(seen, first), second) * self.shape.scale

    def change(self) -> Tensor:
        """What is added to the weight, float32 (N, K)."""
        change_NK = (self.second.float() @ self.first.float()) * self.shape.scale
        return change_NK if self.kept is None else change_NK * self.kept

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The one linear layer that does the same; a packed base becomes a plain one in float32."""
        base = self.base
        if isinstance(base, nn.Linear):
            base.weight.copy_((base.weight.float() + self.change()).to(base.weight.dtype))
            return base
        made = nn.Linear(self.in_features, self.out_features, bias=base.bias is not None, device="meta")
        made.weight = nn.Parameter(base.dequantize() + self.change())
        if base.bias is not None:
            made.bias = nn.Parameter(base.bias.detach().float())
        return made


def add_lora(
    model: Transformer,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = ("all",),
    dropout: float = 0.0,
    rank_stabilised: bool = False,
    keep_zeros: bool = False,
    seed: int = 0,
) -> dict[str, LoRALinear]:
    """Freeze a model and put an adapter beside each target matrix of each block.

    Args:
        targets: names of matrices ("mixer.query" for those of all blocks), their last parts ("query"), or "all".
        seed: the draw of A depends on it and on the order of the matrices alone.

    Returns:
        The adapted layers by dotted name; only their `first` and `second` are trainable.

    Raises:
        SettingError: a target that is no matrix of the model, a rank beyond all of them, or a model that has adapters.
    """
    if adapters(model):
        raise SettingError("lora: the model has adapters already; merge them first")
    shapes = matrices(model.config)
    names = chosen(targets, shapes)
    must_be_low(rank, [min(shapes[name]) for name in names])
    return place(model, dict.fromkeys(names, Shape(rank, alpha, dropout, rank_stabilised)), names if keep_zeros else (), seed)


def place(
    model: Transformer, shapes: Mapping[str, Shape], keep_zeros: Container[str] = (), seed: int = 0
) -> dict[str, LoRALinear]:
    """Freeze a model and put an adapter of the given shape beside each matrix that is named.

    Args:
        keep_zeros: names of matrices whose change is masked.

    Raises:
        SettingError: a model that has adapters.
    """
    if adapters(model):
        raise SettingError("lora: the model has adapters already; merge them first")
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    found: dict[str, LoRALinear] = {}
    for name, shape in shapes.items():
        layer = LoRALinear(model.get_submodule(name), shape, generator, name in keep_zeros)  # type: ignore[arg-type]
        _put(model, name, layer.train(model.training))
        found[name] = layer
    return found


def chosen(targets: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names of matrices ("blocks.3.mixer.query") that the targets mean, in their own order.

    Raises:
        SettingError: a target that means none.
    """
    names = list(names)
    for target in targets:
        if target != "all" and not any(_means(target, name) for name in names):
            inside = dict.fromkeys(name.split(".", 2)[2] for name in names)
            allowed = ["all", *inside, *(name.rpartition(".")[2] for name in inside)]
            raise SettingError(f"lora.targets: {target!r} is no matrix of the model; {nearest(target, allowed)}")
    return [name for name in names if any(target == "all" or _means(target, name) for target in targets)]


def adapters(model: Transformer) -> dict[str, LoRALinear]:
    """The adapted layers of a model by dotted name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def merge(model: Transformer) -> int:
    """Add each adapter to its matrix, in place, and take it away; how many there were. All weights can be trained again."""
    found = adapters(model)
    for name, layer in found.items():
        _put(model, name, layer.merged())
    model.requires_grad_(True)
    return len(found)


def trainable_parameters(model: Transformer) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _means(target: str, name: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)
