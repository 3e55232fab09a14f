"""Slots declare what modules hold: names, shapes, sharing, inputs; and what follows from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shoestring.architecture import Attention, Layer, ModelConfig, SwiGLU, counts
from shoestring.architecture.feedforward import FEED_FORWARDS
from shoestring.architecture.layer import MIXERS
from shoestring.architecture.norm import NORMS
from shoestring.model import Cache, Inputs, Transformer, linears

WIDTH = 32
MADE: dict[str, dict[str, Any]] = {
    **{f"mixer {kind}": {"mixer": {"kind": kind, "heads": 4}} for kind in MIXERS},
    **{f"feed-forward {kind}": {"mixer": {"heads": 4}, "feed_forward": {"kind": kind}} for kind in FEED_FORWARDS},
    **{f"norm {kind}": {"mixer": {"heads": 4, "head_norm": {"kind": kind}}, "norm": {"kind": kind}} for kind in NORMS},
    "biases, shared heads": {"mixer": {"heads": 4, "kv_heads": 2, "head_size": 6, "bias": True}},
    "a window": {"mixer": {"heads": 4, "window": 5}},
    "norms after": {"mixer": {"heads": 4}, "norms": "after"},
    "norms on both sides": {"mixer": {"heads": 4}, "norms": "both"},
    "parallel": {"mixer": {"heads": 4}, "parallel": True},
    "no feed-forward": {"mixer": {"heads": 4}, "feed_forward": None},
}


def config(*layers: dict[str, Any], **settings: Any) -> ModelConfig:
    return ModelConfig(vocabulary=61, width=WIDTH, context=64, layers=layers or ({"mixer": {"heads": 4}},), **settings)


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 61, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("settings", [{}, {"learned_positions": True}, {"tied": False}], ids=str)
@pytest.mark.parametrize("layer", MADE.values(), ids=MADE)
def test_slots_are_what_modules_hold(layer: dict[str, Any], settings: dict[str, Any]) -> None:
    shape = config(layer, {"mixer": {"heads": 2}}, **settings)
    held = {name: tuple(tensor.shape) for name, tensor in Transformer(shape).state_dict().items()}
    declared = {f"{slot.name}.weight": slot.shape for slot in shape.slots()}
    declared |= {f"{slot.name}.bias": (slot.outputs,) for slot in shape.slots() if slot.bias}
    assert declared == held
    assert counts.parameters(shape) == sum(parameter.numel() for parameter in Transformer(shape).parameters())


@pytest.mark.parametrize("layer", MADE.values(), ids=MADE)
def test_matrices_that_read_the_same_are_declared_so(layer: dict[str, Any]) -> None:
    shape = config(layer)
    model, seen = Transformer(shape).initialise().eval(), list[tuple[torch.Tensor, list[str]]]()

    def before(name: str, argument: torch.Tensor) -> None:
        names = next((names for tensor, names in seen if tensor is argument), None)
        names.append(name) if names is not None else seen.append((argument, [name]))

    for name, module in linears(model.blocks[0]).items():
        module.register_forward_pre_hook(lambda module, arguments, name=name: before(name, arguments[0]))
    model(tokens(1, 4))
    declared: dict[str, list[str]] = {}
    for slot in counts.matrices(shape.layers[0], WIDTH):
        declared.setdefault(slot.reads, []).append(slot.name)
    assert list(declared.values()) == [names for _, names in seen]


@pytest.mark.parametrize("layer", MADE.values(), ids=MADE)
def test_a_scale_moves_from_what_feeds_a_matrix_into_it(layer: dict[str, Any]) -> None:
    model = Transformer(config(layer)).initialise().eval()
    before = model(tokens(1, 9))
    for slot in model.config.slots():
        feeder = next((other for other in model.config.slots() if other.name == slot.fed_by), None)
        if feeder is None or slot.shares or feeder.shape[0] != slot.inputs:  # shared heads: one output feeds several inputs
            continue
        readers = [other for other in model.config.slots() if other.fed_by == feeder.name]
        scale = torch.rand(slot.inputs, generator=torch.Generator().manual_seed(2)) + 0.5
        with torch.no_grad():
            for tensor in model.get_submodule(feeder.name).parameters():
                tensor.mul_(scale if tensor.ndim == 1 else scale[:, None])
            for reader in readers:
                model.get_submodule(reader.name).weight.div_(scale)
    torch.testing.assert_close(model(tokens(1, 9)), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", MADE.values(), ids=MADE)
def test_a_layer_decodes_as_it_reads(layer: dict[str, Any]) -> None:
    model, text = Transformer(config(layer, {"mixer": {"heads": 2}})).initialise().eval(), tokens(2, 20)
    with torch.inference_mode():
        whole, cache, parts = model(text), Cache.of(model, 2, 32), []
        for first, last in ((0, 7), (7, 8), (8, 20)):
            rows = cache.rows(last - first)
            parts.append(model(text[:, first:last], Inputs(cache=cache, rows=rows)))
            cache.advance(rows)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=0)


def test_a_window_hides_what_is_further_away() -> None:
    model = Transformer(config({"mixer": {"heads": 4, "window": 5}})).initialise().eval()
    text = tokens(1, 20)
    other = text.clone()
    other[:, :8] = 3
    with torch.inference_mode():
        assert torch.equal(model(text)[:, 12:], model(other)[:, 12:])
        assert not torch.allclose(model(text)[:, 11], model(other)[:, 11])


def test_layers_turn_each_by_its_own_base() -> None:
    local, whole = {"mixer": {"heads": 4, "window": 6}}, {"mixer": {"heads": 4, "rope": {"base": 1e6}}}
    mixed = Transformer(config(local, whole)).initialise().eval()
    assert len(mixed.rotaries) == 2
    same = Transformer(config(local, {"mixer": {"heads": 4}})).eval()
    same.load_state_dict(mixed.state_dict())
    with torch.inference_mode():
        assert not torch.allclose(mixed(tokens(1, 20)), same(tokens(1, 20)))


def test_the_flat_spelling_says_the_same_and_is_written_where_it_does() -> None:
    flat = ModelConfig(vocabulary=61, width=WIDTH, layers=3, heads=4, kv_heads=2, head_norm=True, norm_epsilon=1e-6)
    attention = Attention(heads=4, kv_heads=2, head_norm={"kind": "rmsnorm", "epsilon": 1e-6})
    layer = Layer(mixer=attention, feed_forward=SwiGLU(inner=128), norm={"epsilon": 1e-6, "kind": "rmsnorm"})
    spelled = ModelConfig(vocabulary=61, width=WIDTH, layers=[layer] * 3, final_norm={"kind": "rmsnorm", "epsilon": 1e-6})
    assert flat == spelled
    assert spelled.model_dump()["layers"] == 3
    assert ModelConfig(**flat.model_dump()) == flat
    assert flat.with_(layers=5, heads=2, kv_heads=0, head_size=0).layers[4].mixer.head_size == 16


@pytest.mark.parametrize("layer", MADE.values(), ids=MADE)
def test_every_configuration_survives_being_written(layer: dict[str, Any]) -> None:
    shape = config(layer, {"mixer": {"heads": 2}})
    assert ModelConfig.model_validate_json(shape.model_dump_json()) == shape


def test_counting_equal_layers_is_cheap() -> None:
    assert len(ModelConfig(vocabulary=61, width=WIDTH, layers=40, heads=4).distinct) == 1
    spelled = config(*[{"mixer": {"heads": 4}}, {"mixer": {"heads": 2}}] * 5)
    assert [count for _, count in spelled.distinct] == [5, 5]


def test_a_tensor_s_first_draw_follows_from_its_name_and_the_seed_alone() -> None:
    small, deep = Transformer(config()).initialise(3), Transformer(config(*[{"mixer": {"heads": 4}}] * 2)).initialise(3)
    assert torch.equal(small.blocks[0].mixer.query.weight, deep.blocks[0].mixer.query.weight)
    assert not torch.equal(deep.blocks[0].mixer.query.weight, deep.blocks[1].mixer.query.weight)
