"""New forms, solvers and formats fit: a class and a name in a table, no other edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from shoestring.choice import Choice
from shoestring.compress.solution import Group, Solution
from shoestring.compress.walk import Live, gram, walk
from shoestring.model import PackedLinear, Transformer, load_model, save
from shoestring.model.checkpoint.families.family import Reading
from shoestring.model.checkpoint.formats import FORMATS, Format, Leaves
from shoestring.model.forms import FORMS, Kept, Matrix, build, parts
from shoestring.model.forms.packed import packed

QUANTILES = torch.distributions.Normal(0, 1).icdf(torch.linspace(0.02, 0.98, 16))


class NF4(Kept):
    """Sixteen quantiles of a normal distribution, a scale for each group of 16 (arXiv 2305.14314), two codes a byte."""

    form: ClassVar[str] = "nf4"

    @classmethod
    def built(cls, tensors: dict[str, Tensor]) -> NF4:
        return cls(len(tensors["codes"]), 2 * tensors["codes"].shape[1], tensors)

    def weight_rows(self, first: int = 0, last: int | None = None) -> Tensor:
        codes = self.codes[first:last]
        values = QUANTILES[torch.stack((codes & 15, codes >> 4), -1).flatten(1).long()]
        return (values.unflatten(1, (-1, 16)) * self.scale[first:last, :, None].float()).flatten(1)


class Sum(Kept):
    """What is kept in few bits, and a thin product that makes good for its error."""

    form: ClassVar[str] = "sum"

    @classmethod
    def built(cls, tensors: dict[str, Tensor], bits: int) -> Sum:
        found = cls(len(tensors["second"]), tensors["first"].shape[1], tensors)
        found.bits = bits
        return found

    def settings(self) -> dict[str, Any]:
        return {"bits": self.bits}

    def weight_rows(self, first: int = 0, last: int | None = None) -> Tensor:
        inner = PackedLinear.built(dict(self.named_buffers()), self.bits)
        return inner.weight_rows(first, last) + self.second[first:last] @ self.first


class Solver:
    """Rounds to NF4, or to 4 bits with the largest directions of the error beside them."""

    def __init__(self, form: str) -> None:
        self.form = form

    def statistic(self, x_NI: Tensor) -> Tensor:
        return gram(x_NI)

    def solve(self, group: Group) -> dict[str, Solution]:
        return {name: getattr(self, self.form)(weight) for name, weight in group.weights.items()}

    def nf4(self, weight: Tensor) -> Solution:
        groups = weight.unflatten(1, (-1, 16))
        scale = groups.abs().amax(-1) / QUANTILES[-1]
        codes = ((groups / scale[..., None])[..., None] - QUANTILES).abs().argmin(-1).flatten(1).to(torch.uint8)
        return Solution("nf4", {"codes": codes[:, ::2] | codes[:, 1::2] << 4, "scale": scale})

    def sum(self, weight: Tensor) -> Solution:
        groups = weight.unflatten(1, (-1, 16))
        scale = groups.abs().amax(-1) / 7
        codes = (groups / scale[..., None]).round().clamp(-8, 7).flatten(1)
        tensors = packed(codes, scale, None, 4)
        left, size, right = torch.linalg.svd(weight - PackedLinear.built(tensors, 4).weight_rows(), full_matrices=False)
        return Solution("sum", {**tensors, "second": left[:, :4] * size[:4], "first": right[:4].contiguous()}, {"bits": 4})


def awq_read(config: Reading, modules: Leaves, file: Path) -> dict[str, Matrix]:
    names, bits = [name for name, leaves in modules.items() if "qweight" in leaves], config.count("bits")
    found = {}
    for name in names:
        leaves = modules.pop(name)
        own = {"weight_packed": leaves["qweight"].T.contiguous(), "weight_scale": leaves["scales"].T.contiguous()}
        shape = torch.tensor([own["weight_packed"].shape[0], config.count("inputs")])
        found[name] = build("packed", {"bits": bits}, {**own, "weight_shape": shape})
    return found


AWQ = Format(
    method="awq",
    why_not=lambda matrix: "" if matrix.form == "packed" else "only packed integers",
    leaves=lambda matrix: {
        "qweight": parts(matrix)[2]["weight_packed"].T.contiguous(),
        "scales": parts(matrix)[2]["weight_scale"].T.contiguous(),
    },
    config=lambda kept, plain: {"quant_method": "awq", "bits": 4, "inputs": next(iter(kept.values())).in_features},
    read=awq_read,
    bits=lambda config: frozenset({config.count("bits")}),
)


@pytest.fixture(autouse=True)
def new_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (NF4, Sum):
        monkeypatch.setitem(FORMS._makes, kind.form, kind.built)
    monkeypatch.setitem(FORMATS._makes, "awq", Choice("awq", AWQ, "", "").make)


@pytest.mark.parametrize("form", ["nf4", "sum"])
def test_a_form_and_its_solver_go_through_the_walk_onto_the_disk_and_back(
    form: str, model: Transformer, calibration: Tensor, tmp_path: Path
) -> None:
    before = model(calibration).detach()
    reports = walk(Live(model), calibration, Solver(form))
    assert {matrix.form for _, matrix in model.matrices()} == {form}
    assert len(reports) == len(list(model.matrices()))
    assert all(3.9 < matrix.bits_per_weight < 14 for _, matrix in model.matrices())
    save(model, None, tmp_path / "m", torch.float32)
    assert torch.equal(load_model(tmp_path / "m")(calibration), model(calibration))
    apart = (model(calibration) - before).square().mean() / before.square().mean()
    assert 0 < apart < 0.15


def test_a_format_is_one_declaration(model: Transformer, tmp_path: Path) -> None:
    matrix = model.blocks[0].mixer.query
    codes = (matrix.weight.detach() * 50).round().clamp(-8, 7)
    model.blocks[0].mixer.query = PackedLinear.from_parts(codes, torch.full((len(codes), 2), 0.02), None, 4)
    save(model, None, tmp_path / "m", torch.float32, format="awq")
    again = load_model(tmp_path / "m")
    assert again.blocks[0].mixer.query.form == "packed"
    assert torch.equal(again.blocks[0].mixer.query.weight_rows(), model.blocks[0].mixer.query.weight_rows())
