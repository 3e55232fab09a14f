"""Every form of a matrix: the same numbers as its weights, as data and back, on disk and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.choice import Choice, Table
from shoestring.errors import FileError, SettingError
from shoestring.model import PackedLinear, Transformer, forms, linears, load_model, save, write
from shoestring.model.checkpoint.formats import FORMATS
from shoestring.model.forms import FORMS, Dense, Kept, build, parts, put, to_dense


class Ternary(Kept):
    """-a, 0 or a, with one a for each output: what a new form is, all of it."""

    form: ClassVar[str] = "ternary"

    @classmethod
    def built(cls, tensors: dict[str, Tensor]) -> Ternary:
        return cls(*tensors["signs"].shape, tensors)

    def weight_rows(self, first: int = 0, last: int | None = None) -> Tensor:
        return self.signs[first:last].float() * self.scale[first:last, None]


def made(weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
    """A matrix of each form near the same weights."""
    own = {} if bias is None else {"bias": bias}
    codes = (weight * 40).round().clamp(-8, 7)
    zeros = torch.ones(len(weight), 2)
    return {
        "dense": Dense.built({"weight": weight, **own}),
        "packed": PackedLinear.from_parts(codes, torch.full((len(weight), 2), 0.02), zeros, 4, bias_N=bias),
        "ternary": Ternary.built({"signs": weight.sign().to(torch.int8), "scale": weight.abs().mean(1), **own}),
    }


@pytest.fixture(autouse=True)
def with_a_new_form(monkeypatch: pytest.MonkeyPatch) -> None:
    table: Table[Callable[..., Any]] = Table(
        "Matrix.form", *FORMS.choices, Choice("ternary", Ternary.built, "three values", "Q5")
    )
    monkeypatch.setattr(forms, "FORMS", table)
    monkeypatch.setattr("shoestring.model.checkpoint.formats.native.FORMS", table)


@pytest.fixture(params=[*FORMS, "ternary"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("biased", [False, True])
def test_a_product_is_that_of_its_weights_and_so_is_its_gradient(form: str, biased: bool) -> None:
    matrix = made(drawn(12, 16), drawn(12) if biased else None)[form]
    x, other = drawn(5, 16).requires_grad_(), drawn(5, 16).requires_grad_()
    y = matrix(x)
    wanted = other @ matrix.weight_rows().detach().T + (0 if matrix.bias is None else matrix.bias)
    torch.testing.assert_close(y, wanted)
    y.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(matrix.weight_rows(3, 7), matrix.weight_rows()[3:7])
    torch.testing.assert_close(to_dense(matrix)(x), y)


def test_as_data_and_back(form: str) -> None:
    matrix = made(drawn(12, 16), drawn(12))[form]
    name, settings, tensors = parts(matrix)
    again = build(name, settings, tensors)
    assert name == form
    assert torch.equal(again(drawn(3, 16)), matrix(drawn(3, 16)))
    assert again.bits_per_weight == matrix.bits_per_weight


@pytest.mark.parametrize("format", [None, *FORMATS])
def test_saved_and_loaded_gives_the_same_logits(form: str, format: str | None, tmp_path: Path) -> None:
    model = Transformer(ModelConfig(vocabulary=40, width=16, layers=2, heads=2, attention_bias=True)).initialise().eval()
    for name, matrix in linears(model.blocks[1]).items():
        put(model.blocks[1], name, made(matrix.weight_rows().detach(), matrix.bias)[form])
    kept = next(iter(linears(model.blocks[1]).values()))
    if form != "dense" and format is not None and FORMATS[format].why_not(kept):
        with pytest.raises(SettingError, match=rf"format: {format} can't hold this model.*name native"):
            save(model, None, tmp_path / "m", format=format)
        return
    save(model, None, tmp_path / "m", torch.float32, format=format)
    again, text = load_model(tmp_path / "m"), torch.arange(12)[None]
    assert [matrix.form for _, matrix in again.matrices()] == [matrix.form for _, matrix in model.matrices()]
    assert torch.equal(again(text), model(text))


def test_a_form_that_nobody_knows_is_named(tmp_path: Path) -> None:
    model = Transformer(ModelConfig(vocabulary=40, width=16, layers=1, heads=2)).initialise()
    put(model.blocks[0], "mixer.query", made(drawn(16, 16), None)["ternary"])
    write(model, None, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"ternary"', '"ternery"'))
    with pytest.raises(FileError, match=r"no form called 'ternery'; did you mean 'ternary'"):
        load_model(tmp_path)


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    model = Transformer(ModelConfig(vocabulary=40, width=16, layers=1, heads=2)).initialise()
    with pytest.raises(SettingError, match=r"format: no format called 'gguf'"):
        save(model, None, tmp_path / "m", format="gguf")
