"""The calibration walk: what is shared, in what order, in chunks, and after a kill."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.compress import GPTQ, Wanda
from shoestring.compress.restart import RECORD, Restart
from shoestring.compress.solution import Group, Solution
from shoestring.compress.walk import Live, gram, squares, walk
from shoestring.model import Block, Transformer


class Watching:
    """A method that changes nothing, or scales each weight, and remembers what it was shown."""

    def __init__(self, factor: float = 1.0, statistic: object = gram) -> None:
        self.factor, self.groups, self.statistics, self._statistic = factor, [], 0, statistic

    def statistic(self, x_NI: Tensor) -> Tensor:
        self.statistics += 1
        return self._statistic(x_NI)

    def solve(self, group: Group) -> dict[str, Solution]:
        assert not torch.is_autocast_enabled("cpu")
        self.groups.append(group)
        return {
            name: Solution("dense", {"weight": weight * self.factor}, report={"seen": True})
            for name, weight in group.weights.items()
        }


def test_matrices_of_one_input_share_one_gram(model: Transformer, calibration: Tensor) -> None:
    method = Watching()
    reports = walk(Live(model), calibration, method)
    assert [list(group.weights) for group in method.groups[:4]] == [
        ["blocks.0.mixer.query", "blocks.0.mixer.key", "blocks.0.mixer.value"],
        ["blocks.0.mixer.output"],
        ["blocks.0.feed_forward.gate", "blocks.0.feed_forward.up"],
        ["blocks.0.feed_forward.down"],
    ]
    assert method.statistics == 8
    assert [report["name"] for report in reports] == [name for name, _ in model.matrices()]
    assert all(report["seen"] for report in reports)
    assert all(group.tokens == calibration.numel() for group in method.groups)


def test_inputs_are_those_of_the_compressed_model(model: Transformer, calibration: Tensor) -> None:
    """Each Gram matrix equals that of a separate pass over the model as changed up to there."""
    changed = copy.deepcopy(model)
    method = Watching(0.9)
    walk(Live(model), calibration, method)
    for group in method.groups:
        caught: list[Tensor] = []
        first = changed.get_submodule(next(iter(group.weights)))
        hook = first.register_forward_pre_hook(lambda _, arguments, caught=caught: caught.append(arguments[0].flatten(0, 1)))
        with torch.no_grad():
            changed(calibration)
            hook.remove()
            expected = caught[0].double().T @ caught[0].double()
            torch.testing.assert_close(group.statistic.double(), expected, rtol=1e-4, atol=1e-3)
            for name in group.weights:
                changed.get_submodule(name).weight.mul_(0.9)


def test_bfloat16_is_for_the_pass_alone(model: Transformer, calibration: Tensor) -> None:
    exact, cast = Watching(), Watching()
    walk(Live(copy.deepcopy(model)), calibration, exact, precision="fp32")
    walk(Live(model), calibration, cast, precision="bf16")
    for one, two in zip(exact.groups, cast.groups):
        assert two.statistic.dtype == torch.float32
        torch.testing.assert_close(one.statistic, two.statistic, rtol=0.1, atol=0.05 * float(one.statistic.abs().max()))
    first = [method.groups[0].statistic for method in (exact, cast)]
    torch.testing.assert_close(*first, rtol=1e-5, atol=1e-5)  # before any product


def test_gram_and_squares_against_float64() -> None:
    x = torch.randn(40, 600)
    expected = x.double().T @ x.double()
    torch.testing.assert_close(gram(x).double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(gram(x), gram(x).T)
    torch.testing.assert_close(squares(x).double(), expected.diagonal(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("technique", [GPTQ(group_size=32, precision="fp32", search="mse"), Wanda(precision="fp32")])
def test_chunks_give_the_same(model: Transformer, calibration: Tensor, technique: GPTQ | Wanda) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        walk(Live(model), calibration, technique._method(lambda said: None))
        walk(Live(other), calibration, technique._method(lambda said: None), chunk_bytes=1)
        torch.testing.assert_close(model(calibration), other(calibration), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "shape",
    [
        {"position": "learned", "feed_forward": "gelu", "norm": "layernorm", "tied": False},
        {"attention_bias": True, "head_norm": True},
    ],
)
def test_other_shapes_of_model(shape: dict[str, object], calibration: Tensor) -> None:
    config = ModelConfig(vocabulary=260, width=32, layers=2, heads=2, context=64, **shape)
    model = Transformer(config).initialise(2).eval()
    biases = {name: p.detach().clone() for name, p in model.named_parameters() if name.endswith("bias")}
    GPTQ(bits=8, group_size=32).apply_to(model, calibration)
    assert torch.isfinite(model(calibration)).all()
    for name, bias in biases.items():
        assert torch.equal(model.get_buffer(name), bias)


class Looking:
    """A method that only looks."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def statistic(self, x_NI: Tensor) -> Tensor:
        return squares(x_NI)

    def solve(self, group: Group) -> dict[str, Solution]:
        self.seen += [slot.fed_by for slot in group.slots.values()]
        return {}


def test_a_method_may_only_look(model: Transformer, calibration: Tensor) -> None:
    before, method = copy.deepcopy(model.state_dict()), Looking()
    assert walk(Live(model), calibration, method) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert method.seen[:4] == ["mixer_norm", "mixer_norm", "mixer_norm", "mixer.value"]


class Healing(Watching):
    """Breaks each matrix, then lets the block's norms learn to make good for it."""

    def __init__(self, model: Transformer) -> None:
        super().__init__(0.5, squares)
        self.model = model
        self.lost: list[tuple[float, float]] = []

    def refine(self, block: Block, x_NTC: Tensor, y_NTC: Tensor) -> None:
        inputs = self.model.prepared(torch.zeros(x_NTC.shape[:2], dtype=torch.long))
        optimizer = torch.optim.Adam([block.mixer_norm.weight, block.feed_forward_norm.weight], lr=0.05)
        losses = []
        for _ in range(8):
            loss = (block(x_NTC, inputs) - y_NTC).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        self.lost.append((losses[0], losses[-1]))


def test_a_method_may_refine_a_solved_block_by_gradients(model: Transformer, calibration: Tensor) -> None:
    method = Healing(model)
    walk(Live(model), calibration, method)
    assert len(method.lost) == len(model.blocks)
    assert all(last < first for first, last in method.lost)


class Killed(Exception):
    pass


@pytest.mark.parametrize("technique", [GPTQ(group_size=32, symmetric=False), Wanda()])
def test_goes_on_after_a_kill_with_the_same_result(
    model: Transformer, calibration: Tensor, tmp_path: Path, technique: GPTQ | Wanda
) -> None:
    whole, again = copy.deepcopy(model), copy.deepcopy(model)
    expected = technique.apply_to(whole, calibration)

    def kill(said: str, done: float | None = None) -> None:
        if said.startswith("block 1"):
            raise Killed

    with pytest.raises(Killed):
        technique.apply_to(model, calibration, progress=kill, restart=Restart(tmp_path, every=0))
    said: list[tuple[str, float | None]] = []
    found = technique.apply_to(
        again, calibration, progress=lambda text, done=None: said.append((text, done)), restart=Restart(tmp_path, every=0)
    )
    assert said == [("going on at block 2 of 2", 0.5), ("block 2 of 2", 1.0)]
    assert found == expected
    for (name, one), (_, two) in zip(whole.state_dict().items(), again.state_dict().items()):
        assert torch.equal(one, two), name


def test_a_damaged_restart_point_is_left_aside(model: Transformer, calibration: Tensor, tmp_path: Path) -> None:
    expected = copy.deepcopy(model)
    Wanda().apply_to(expected, calibration)
    (tmp_path / RECORD).write_text('{"blocks": 1, "x": "x-1.safetensors", "files": [], "reports": []}')
    (tmp_path / "x-1.safetensors").write_bytes(b"not tensors")
    Wanda().apply_to(model, calibration, restart=Restart(tmp_path))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), expected.parameters()))


def test_a_flipped_bit_anywhere_ends_in_the_same_result(model: Transformer, calibration: Tensor, tmp_path: Path) -> None:
    technique, expected = Wanda(), copy.deepcopy(model)
    technique.apply_to(expected, calibration)
    began = copy.deepcopy(model)

    def kill(said: str, done: float | None = None) -> None:
        if said.startswith("block 1"):
            raise Killed

    with pytest.raises(Killed):
        technique.apply_to(model, calibration, progress=kill, restart=Restart(tmp_path, every=0))
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(kept) == 3
    for file, good in kept.items():
        for place in [*range(0, len(good), max(1, len(good) // 12)), len(good) - 1]:
            for other, content in kept.items():
                other.write_bytes(content)
            file.write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :])
            notes: list[str] = []
            again = copy.deepcopy(began)
            technique.apply_to(again, calibration, restart=Restart(tmp_path, note=notes.append))
            assert all(torch.equal(one, two) for one, two in zip(again.parameters(), expected.parameters())), (file.name, place)
            assert len(notes) == 1, (file.name, place)
            assert notes[0].startswith(f"calibration begins anew: {file}"), notes


def test_a_full_disk_costs_the_walk_its_restart_points_and_nothing_else(
    model: Transformer, calibration: Tensor, small_disk: Path
) -> None:
    expected = copy.deepcopy(model)
    Wanda().apply_to(expected, calibration)
    (small_disk / "other").write_bytes(b"\0" * (960 << 10))
    notes: list[str] = []
    Wanda().apply_to(model, calibration, restart=Restart(small_disk / "walk", every=0, note=notes.append))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), expected.parameters()))
    assert len(notes) == 1
    assert "goes on without a new restart point" in notes[0]
    assert "no space left" in notes[0]
    assert list((small_disk / "walk").iterdir()) == []
