"""New things fit without an edit: an early exit, a cache in 8 bits, a matrix with an adapter a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shoestring.architecture import ModelConfig, StateShape
from shoestring.model import Block, Cache, Inputs, Transformer, hidden, linears
from shoestring.model.cache import LayerState, Rows
from shoestring.model.forms import Dense, put
from shoestring.model.transformer import plain

TEXT = torch.arange(24).view(2, 12) % 23


def small(**settings: Any) -> Transformer:
    config = ModelConfig(vocabulary=31, width=32, layers=4, heads=4, kv_heads=2, context=64, **settings)
    return Transformer(config).initialise(2).eval()


def test_an_exit_at_a_layer_is_a_visit() -> None:
    model, shallow = small(), small(tied=True)
    visited: list[int] = []

    def until_two(number: int, block: Block, x_BTC: Tensor, inputs: Inputs) -> tuple[Tensor, Inputs]:
        if number >= 2:
            return x_BTC, inputs
        visited.append(number)
        return plain(number, block, x_BTC, inputs)

    shallow.blocks = shallow.blocks[:2]
    with torch.inference_mode():
        assert torch.equal(model(TEXT, visit=until_two), shallow(TEXT))
    assert visited == [0, 1]


def test_the_layers_of_a_pass_can_be_run_in_two_halves() -> None:
    """What pipeline stages and offloading need."""
    model = small()
    with torch.inference_mode():
        inputs = model.prepared(TEXT)
        half = model(TEXT, inputs, layers=slice(None, 2))
        assert torch.equal(model(half, inputs, layers=slice(2, None)), model(TEXT))
        assert torch.equal(model(TEXT, read=hidden) @ model.head.weight.T, model(TEXT))


class Eighths(LayerState):
    """Keys and values in 8 bits, a scale for each vector."""

    def __init__(self, shape: StateShape, places: int, capacity: int, like: Tensor) -> None:
        super().__init__(shape, places, capacity, like)
        kept = dict(self.token)
        self.token = {name: tensor.to(torch.int8) for name, tensor in kept.items()}
        self.token |= {f"{name} scale": tensor[..., :1].clone() for name, tensor in kept.items()}

    def extend(self, rows: Rows, positions_BT: Tensor, **new: Tensor) -> Iterator[Tensor]:
        for name, values in new.items():
            scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
            both = {name: (values / scale).round(), f"{name} scale": scale}
            codes, scales = super().extend(rows, positions_BT, **both)
            yield codes * scales


def test_a_cache_in_eight_bits_is_one_class() -> None:
    model = small()

    def read(state: type[LayerState]) -> tuple[Tensor, int]:
        cache = Cache(model.config, model.embedding.weight, 2, 64, state=state)
        found = []
        for first, last in ((0, 8), (8, 9), (9, 12)):
            rows = cache.rows(last - first)
            found.append(model(TEXT[:, first:last], Inputs(cache=cache, rows=rows)))
            cache.advance(rows)
        cache.reserve(100)
        cache.copy(0, 1)
        return torch.cat(found, 1), sum(kept.nbytes for layer in cache.layers for kept in layer.token.values())

    with torch.inference_mode():
        (exact, whole), (rounded, small_) = read(LayerState), read(Eighths)
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0)
    assert not torch.equal(rounded, exact)
    assert small_ == whole * (1 + 4 / 8) / 4


class Many(nn.Module):
    """A matrix beside which each row of a batch has an adapter of its own, or none."""

    form: ClassVar[str] = "many"

    def __init__(self, base: Dense, first_ARK: Tensor, second_ANR: Tensor) -> None:
        super().__init__()
        self.base, self.first, self.second = base, first_ARK, second_ANR
        self.which_B = torch.zeros(0, dtype=torch.long)
        self.in_features, self.out_features, self.bias = base.in_features, base.out_features, base.bias

    def forward(self, x: Tensor) -> Tensor:
        change = torch.einsum("btk,brk,bnr->btn", x, self.first[self.which_B], self.second[self.which_B])
        return self.base(x) + change


def test_adapters_answer_beside_their_base_in_one_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    model, one, two = small(), small(), small()
    for number, block in enumerate(model.blocks):
        for name, matrix in list(linears(block).items()):
            first = torch.randn(3, 2, matrix.in_features, generator=generator) * 0.1
            second = torch.randn(3, matrix.out_features, 2, generator=generator) * 0.1
            first[0] = 0
            with torch.no_grad():
                for which, changed in ((1, one), (2, two)):
                    changed.get_submodule(f"blocks.{number}.{name}").weight.add_(second[which] @ first[which])
            put(block, name, Many(matrix, first, second))
            block.get_submodule(name).which_B = torch.tensor([0, 1, 2])
    text = TEXT[:1].expand(3, -1)
    with torch.inference_mode():
        got = model(text)
        for row, alone in enumerate((small(), one, two)):
            torch.testing.assert_close(got[row], alone(text[:1])[0], atol=1e-5, rtol=0)
    assert not torch.allclose(got[0], got[1])
