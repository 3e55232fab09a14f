"""New mixers and feed-forwards need a declaration and a module: everything else follows, and is tested here as for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring.architecture import ModelConfig, counts
from shoestring.errors import SettingError
from shoestring.infer import Sampling, generate
from shoestring.model import Cache, Inputs, Transformer, load_model, save
from tests.architecture import test_architecture_slots as slots
from tests.model.new_parts import NEW, new_parts  # noqa: F401

pytestmark = pytest.mark.usefixtures("new_parts")

LAYERS: dict[str, dict[str, Any]] = {
    "mla": {"mixer": {"kind": "mla"}},
    "mamba2": {"mixer": {"kind": "mamba2"}},
    "experts": {"mixer": {"heads": 4}, "feed_forward": {"kind": "experts"}},
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> dict[str, Any]:
    return LAYERS[request.param]


def made(layer: dict[str, Any]) -> Transformer:
    return Transformer(slots.config(layer, {"mixer": {"heads": 2}})).initialise(1).eval()


def test_it_is_declared_written_and_counted_as_all_others(layer: dict[str, Any], tmp_path: Path) -> None:
    slots.test_slots_are_what_modules_hold(layer, {})
    slots.test_every_configuration_survives_being_written(layer)
    model = made(layer)
    save(model, None, tmp_path / "m")
    assert torch.equal(load_model(tmp_path / "m")(slots.tokens(1, 9)), model(slots.tokens(1, 9)))


def test_reading_in_parts_equals_reading_at_once(layer: dict[str, Any]) -> None:
    slots.test_a_layer_decodes_as_it_reads(layer)


def test_padding_on_the_right_leaves_the_state_alone(layer: dict[str, Any]) -> None:
    model, text = made(layer), slots.tokens(2, 12)
    lengths = torch.tensor([5, 9])
    with torch.inference_mode():
        cache = Cache.of(model, 2, 32)
        rows = cache.rows(lengths)
        model(text[:, :9], Inputs(cache=cache, rows=rows))
        cache.advance(rows)
        rest = torch.stack([text[row, n : n + 3] for row, n in enumerate(lengths.tolist())])
        rows = cache.rows(3)
        got = model(rest, Inputs(cache=cache, rows=rows))
        for row, n in enumerate(lengths.tolist()):
            torch.testing.assert_close(got[row], model(text[row : row + 1, : n + 3])[0, n:], atol=2e-5, rtol=0)


def test_rows_come_and_go_as_alone(layer: dict[str, Any]) -> None:
    model = made(layer)
    settings = [Sampling(temperature=0, max_tokens=count) for count in (3, 12, 7, 9)]
    prompts = [[1, 2, 3], [4], [5] * 9, [6, 7]]
    alone = [generate(model, [prompt], one)[0] for prompt, one in zip(prompts, settings)]
    assert generate(model, prompts, settings, batch=2) == alone


def test_a_drafter_is_refused_where_a_wrong_guess_could_not_be_forgotten() -> None:
    with pytest.raises(SettingError, match=r"drafter: this model keeps a recurrent state"):
        generate(made(LAYERS["mamba2"]), [[1, 2]], Sampling(max_tokens=4), drafter="ngram")


def test_a_token_passes_through_some_experts_and_all_are_used() -> None:
    shape = slots.config(LAYERS["experts"])
    inner = sum(slot.size for slot in shape.matrices() if len(slot.shape) == 3)
    assert counts.linear_parameters(shape) - counts.active_parameters(shape) == inner / 2
    model = made(LAYERS["experts"]).train()
    router = model.blocks[0].feed_forward
    with torch.no_grad():
        router.router.weight[0] += 1.0  # one that everybody likes
    for _ in range(40):
        model(slots.tokens(4, 16))
    assert router.liking[0] < router.liking[1:].min()


def test_a_latent_keeps_less_of_a_token_than_keys_and_values() -> None:
    latent, whole = (ModelConfig(vocabulary=9, width=32, layers=[{"mixer": mixer}]) for mixer in ({"kind": "mla"}, {"heads": 4}))
    assert counts.cache_bytes_per_token(latent) == 2 * (8 + 4)
    assert counts.cache_bytes_per_token(whole) == 2 * 2 * 32


def test_all_new_parts_are_tried() -> None:
    assert set(LAYERS) == set(NEW)
