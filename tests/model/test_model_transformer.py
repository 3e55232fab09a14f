"""The Transformer: cached decoding, rope, grouped heads, document masks, initialisation; and what cost.py says of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from shoestring.architecture import Flat, ModelConfig, Rope, RopeScaling, counts
from shoestring.model import TABLES, Cache, Inputs, Transformer, linears, rope

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "untied": {"tied": False},
    "one kv head": {"kv_heads": 1},
    "many kv heads": {"kv_heads": 4},
    "gpt2": {"position": "learned", "norm": "layernorm", "feed_forward": "gelu"},
    "no position": {"position": "none"},
    "qwen2": {"attention_bias": True},
    "qwen3": {"head_norm": True, "head_size": 16},
    "llama3": {"rope_scaling": RopeScaling(factor=8.0, original_context=16)},
}


def config(**settings: Any) -> ModelConfig:
    base = {"vocabulary": 97, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "feed_forward_width": 48, "context": 64}
    return ModelConfig(**{**base, **settings})


def model(kind: str = "llama", seed: int = 0) -> Transformer:
    return Transformer(config(**KINDS[kind])).initialise(seed).eval()


def tokens(rows: int = 2, length: int = 20, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


def extended(ours: Transformer, cache: Cache, text: torch.Tensor, count: int | torch.Tensor | None = None) -> torch.Tensor:
    """Read tokens into a cache."""
    rows = cache.rows(text.shape[1] if count is None else count)
    logits = ours(text, Inputs(cache=cache, rows=rows))
    cache.advance(rows)
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_with_a_cache_equals_one_pass(kind: str) -> None:
    ours, text = model(kind), tokens()
    with torch.inference_mode():
        cache = Cache.of(ours, 2, 32)
        parts = [extended(ours, cache, text[:, first:last]) for first, last in ((0, 7), (7, 8), (8, 9), (9, 20))]
        torch.testing.assert_close(torch.cat(parts, 1), ours(text), atol=2e-5, rtol=0)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9))
def test_rows_of_unequal_length_share_a_cache(first: int, second: int) -> None:
    ours, text = model(), tokens()
    counts = torch.tensor([first, second])
    with torch.inference_mode():
        cache = Cache.of(ours, 2, 32)
        extended(ours, cache, text[:, : int(counts.max())], counts)  # the shorter row's padding is overwritten later
        rest = torch.stack([text[row, n : n + 4] for row, n in enumerate(counts.tolist())])
        got = extended(ours, cache, rest)
        assert cache.held_R.tolist() == [first + 4, second + 4]
        for row, n in enumerate(counts.tolist()):
            torch.testing.assert_close(got[row], ours(text[row : row + 1, : n + 4])[0, n:], atol=2e-5, rtol=0)


def test_a_place_goes_on_as_the_one_it_was_copied_from_and_survives_growth() -> None:
    ours, text = model(), tokens(1, 70)
    with torch.inference_mode():
        cache = Cache.of(ours, 3, 64)
        place = cache.rows(torch.tensor([60]), 2, 60)
        ours(text[:, :60], Inputs(cache=cache, rows=place))
        cache.advance(place)
        cache.copy(2, 0, 60)
        cache.reserve(70)
        assert cache.capacity == 128
        place = cache.rows(torch.tensor([10]), 0, 70)
        got = ours(text[:, 60:], Inputs(cache=cache, rows=place))
        torch.testing.assert_close(got, ours(text)[:, 60:], atol=2e-5, rtol=0)
    assert cache.held_R.tolist() == [60, 0, 60]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_token_never_sees_what_follows(kind: str) -> None:
    ours, text = model(kind), tokens()
    other = text.clone()
    other[:, 11:] = 5
    with torch.inference_mode():
        assert torch.equal(ours(text)[:, :11], ours(other)[:, :11])


def test_documents_in_one_row_don_t_see_each_other() -> None:
    ours, text = model(), tokens(1)
    documents = torch.tensor([[0] * 8 + [1] * 12])
    other = text.clone()
    other[:, :8] = 3
    with torch.inference_mode():
        packed = ours(text, Inputs(documents_BT=documents))
        torch.testing.assert_close(packed[:, :8], ours(text[:, :8]), atol=2e-5, rtol=0)
        torch.testing.assert_close(packed[:, 8:], ours(text[:, 8:]), atol=2e-5, rtol=0)  # rope: distances alone count
        assert torch.equal(ours(other, Inputs(documents_BT=documents))[:, 8:], packed[:, 8:])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 500))
def test_rope_depends_on_distance_alone(query_place: int, key_place: int, shift: int) -> None:
    table = rope.table(Rope(), 16, 600).double()
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator, dtype=torch.float64)

    def score(by: int) -> float:
        turned = [_rotate64(x, table[place + by]) for x, place in ((query, query_place), (key, key_place))]
        return float((turned[0] * turned[1]).sum())

    assert score(0) == pytest.approx(score(shift), abs=2e-3)


def test_rotation_is_the_complex_one_and_keeps_lengths() -> None:
    x = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0))
    turned = rope.rotate(x, rope.table(Rope(), 16, 5)[None])
    plane = torch.complex(*x.double().chunk(2, -1))
    angles = torch.outer(torch.arange(5).double(), 10_000.0 ** (-torch.arange(0, 16, 2).double() / 16))
    wanted = plane * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(turned.double(), torch.cat((wanted.real, wanted.imag), -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_the_rotary_table_grows_and_stays_float32() -> None:
    ours = model()
    with torch.inference_mode():
        assert ours(tokens(1, 100)).shape == (1, 100, 97)
        short = ours.to(torch.bfloat16)
        short(tokens(1, 8))
        assert next(iter(short.rotaries.values())).table.dtype == torch.float32


def test_grouped_heads_equal_repeated_ones() -> None:
    grouped, full = model("llama"), model("many kv heads")
    full.load_state_dict({n: t for n, t in grouped.state_dict().items() if ".key." not in n and ".value." not in n}, strict=False)
    for ours, theirs in zip(grouped.blocks, full.blocks):
        for name in ("key", "value"):
            weight = getattr(ours.mixer, name).weight.detach().view(2, 8, 32)
            getattr(theirs.mixer, name).weight.data = weight.repeat_interleave(2, 0).reshape(32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(full(tokens()), grouped(tokens()), atol=2e-5, rtol=0)


def test_attention_equals_a_plain_sum_in_float64() -> None:
    ours = model("no position").double()
    mixer = ours.blocks[0].mixer
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        got = mixer(x, ours.prepared(tokens(1, 6)))
        query, key, value = (getattr(mixer, n)(x).view(6, -1, 8) for n in ("query", "key", "value"))
        rows = torch.zeros(6, 4, 8, dtype=torch.float64)
        for place in range(6):
            for head in range(4):
                scores = torch.stack([query[place, head] @ key[s, head // 2] / math.sqrt(8) for s in range(place + 1)])
                rows[place, head] = F.softmax(scores, 0) @ value[: place + 1, head // 2]
        torch.testing.assert_close(got[0], mixer.output(rows.reshape(6, 32)))


def test_initialising_is_deterministic_and_scaled() -> None:
    first, again, other = model(seed=3), model(seed=3), model(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    large = Transformer(config(width=256, heads=8, kv_heads=8, feed_forward_width=512)).initialise(0)
    assert large.blocks[0].feed_forward.up.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert large.blocks[0].feed_forward.down.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_linears_are_named_in_the_order_of_computation() -> None:
    names = [
        "mixer.query",
        "mixer.key",
        "mixer.value",
        "mixer.output",
        "feed_forward.gate",
        "feed_forward.up",
        "feed_forward.down",
    ]
    assert list(linears(model().blocks[0])) == names


@pytest.mark.parametrize("kind", KINDS)
def test_cost_counts_what_is_there(kind: str) -> None:
    ours = model(kind)
    assert counts.parameters(ours.config) == sum(p.numel() for p in ours.parameters())
    assert counts.linear_parameters(ours.config) == sum(
        layer.weight.numel() for block in ours.blocks for layer in linears(block).values()
    )
    cache = Cache.of(ours, 3, 64)
    stored = sum(kept.nbytes for layer in cache.layers for kept in layer.token.values())
    assert counts.cache_bytes_per_token(ours.config, 4) * 3 * 64 == stored


@pytest.mark.parametrize("kind", ["llama", "one kv head", "gpt2", "untied"])
def test_flops_agree_with_pytorch_s_counter(kind: str) -> None:
    """PyTorch counts the whole square of attention scores, ours the causal half: the difference is exactly known."""
    ours, length = model(kind), 24
    # The plain backend: fused attention on a CPU is counted as nothing.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = ours(tokens(2, length)).sum()
    square = 2 * length * len(ours.config.layers) * 2 * 2 * ours.config.flat.heads * ours.config.flat.head_size * (length - 1) / 2
    assert counts.forward_flops(ours.config, 2 * length, length) + square == counter.get_total_flops()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = ours(tokens(2, length)).sum()
        loss.backward()
    assert counts.training_flops(ours.config, 2 * length, length) == pytest.approx(
        counter.get_total_flops() - 3 * square, rel=0.02
    )


def test_decoding_sums_to_reading() -> None:
    ours = config()
    assert sum(counts.decode_flops(ours, place) for place in range(30)) == pytest.approx(counts.forward_flops(ours, 30, 30))


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"heads": 3, "width": 33}, "kv_heads must divide heads"),
        ({"head_size": 7}, "head_size must be even"),
        ({"mixer": ("attention",)}, "mixer names 1 layers"),
        ({"width": 0}, "greater than 0"),
        ({"widht": 3}, "Extra inputs"),
    ],
)
def test_a_configuration_that_can_t_be_is_refused(settings_: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**settings_)


def test_choices_name_fields_of_the_configuration() -> None:
    for table in TABLES:
        if table.field.startswith("ModelConfig."):
            assert table.field.removeprefix("ModelConfig.") in Flat.model_fields


def _rotate64(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    cos, sin = turn
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
