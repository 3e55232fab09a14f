"""Costs: against counts by hand, and the shape that a roofline must have."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import decode_flops
from shoestring.infer import cost, probe
from shoestring.measure import Hardware, find
from shoestring.measure.counts import seconds
from shoestring.model import Cache, Transformer, hidden

CONFIG = ModelConfig(vocabulary=97, width=32, layers=2, heads=4, kv_heads=2, context=192)
HARDWARE = find("cpu")


def step_seconds(config: ModelConfig, rows: int, position: float, hardware: Hardware) -> float:
    return seconds(cost.step_counts(config, rows, position, hardware), cost.ASSUMED, hardware)


def test_weight_traffic_is_what_a_pass_touches() -> None:
    tied = sum(parameter.numel() for parameter in Transformer(CONFIG).parameters())
    assert cost.weight_traffic(CONFIG) == 4 * tied
    untied = CONFIG.with_(tied=False)
    assert cost.weight_traffic(untied) == 4 * tied  # the embedding's rows are not all read
    packed = cost.weight_traffic(CONFIG, cost.Stored(weight=4.25))
    inner = sum(p.numel() for name, p in Transformer(CONFIG).named_parameters() if "blocks" in name and p.ndim > 1)
    assert packed == 4 * tied - inner * (32 - 4.25) / 8


def test_cache_bytes_are_the_cache() -> None:
    cache = Cache.of(Transformer(CONFIG), 3, 64)
    held = sum(kept.nbytes for layer in cache.layers for kept in layer.token.values())
    assert cost.cache_bytes(CONFIG, 3, 64) == held


def test_prefill_flops_count_the_head_once() -> None:
    model = Transformer(CONFIG).initialise()
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model.head(model(torch.zeros(1, 20, dtype=torch.long), read=hidden)[:, -1])
    attention = len(CONFIG.layers) * 2 * 2 * CONFIG.flat.heads * CONFIG.flat.head_size * 20 * 21 / 2
    # PyTorch counts no fused attention on a CPU, so the scores are added by hand.
    assert cost.prefill_flops(CONFIG, 1, 20) == pytest.approx(counter.get_total_flops() + attention, rel=1e-9)


def test_a_step_is_bound_by_bytes_then_by_operations() -> None:
    big = ModelConfig(vocabulary=49152, width=576, layers=30, heads=9, kv_heads=3, feed_forward_width=1536, context=2048)
    one, eight = (step_seconds(big, rows, 128, HARDWARE) for rows in (1, 8))
    assert one <= eight < 1.5 * one, "at small batches the weights' bytes are shared"
    many = [step_seconds(big, rows, 128, HARDWARE) for rows in (256, 512)]
    assert many[1] > 1.7 * many[0], "at large ones the operations count"
    assert step_seconds(big, 1, 1000, HARDWARE) > one
    faster = HARDWARE.with_(reached={"infer.moved": 1e-12, "infer.layers": 0.0, "infer.steps": 0.0})
    assert step_seconds(big, 1, 128, faster) < one / 3


def test_decode_seconds_sum_the_steps() -> None:
    by_hand = sum(step_seconds(CONFIG, 2, 10 + n, HARDWARE) for n in range(7))
    assert seconds(cost.decode_counts(CONFIG, 2, 10, 7, HARDWARE), cost.ASSUMED, HARDWARE) == pytest.approx(by_hand)
    assert cost.decode_total_flops(CONFIG, 2, 10, 7) == pytest.approx(2 * sum(decode_flops(CONFIG, 10 + n) for n in range(7)))


def test_the_probe_finds_what_a_layer_a_step_and_a_draw_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "READ_BYTES", 1 << 24)
    taken = iter([10e-3, 4e-3, 5e-3, 1e-3])  # 8 layers, 2 layers, 2 layers and a draw, all weights read
    monkeypatch.setattr(probe, "timed", lambda work, seconds, synchronise: (work(), next(taken))[1])
    assert probe.probe(HARDWARE) == pytest.approx(
        {"infer.moved": 1e-3 / 2**24, "infer.layers": 1e-3, "infer.steps": 2e-3, "infer.drawn": 1e-3 / (4 * 4096)}, rel=1e-3
    )
