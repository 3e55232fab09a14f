"""What decoding really reaches on this machine: figures for `infer.cost`, measured by `measure.calibrate`."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from shoestring.architecture import ModelConfig
from shoestring.infer.sampling import GREEDY, Chooser
from shoestring.infer.step import step
from shoestring.measure import Hardware
from shoestring.measure.calibration import timed
from shoestring.model import Cache, Transformer

READ_BYTES = 1 << 28
"""Weights that one round of the read probe goes through: more than a processor's cache holds."""


@torch.inference_mode()
def probe(hardware: Hardware) -> dict[str, float]:
    """Seconds of a byte that matrix-vector products read (`infer.moved`), and for a layer's operators to start. About 2 s."""
    return {"infer.moved": _read(hardware.device), "infer.layers": _layer(hardware.device)}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _read(device: str) -> float:
    side = 4096 if device == "cuda" else 1024
    count = READ_BYTES // (4 * side * side)
    weights = [torch.randn(side, side, device=device) for _ in range(count)]
    x = torch.randn(1, side, device=device)

    def work() -> None:
        for weight in weights:
            F.linear(x, weight)

    return timed(work, seconds=0.5, synchronise=lambda: _wait(device)) / READ_BYTES


def _layer(device: str) -> float:
    """A model too narrow for its arithmetic to matter: what is left is the cost of starting operators."""
    layers = 8
    model = Transformer(ModelConfig(vocabulary=256, width=64, layers=layers, heads=2, context=128)).initialise().to(device)
    cache, last_B1 = Cache.of(model, 1, 128), torch.zeros(1, 1, dtype=torch.long, device=device)
    chooser, rows = Chooser.of([GREEDY], last_B1.device), cache.rows(1, length=64)

    def work() -> None:
        step(model, cache, rows, last_B1, chooser, [[0.0]])  # always the same row, so always the same place

    return timed(work, seconds=0.5, synchronise=lambda: _wait(device)) / layers
