"""What decoding really reaches on this machine: figures for `infer.cost`, measured by `measure.calibrate`."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from shoestring.architecture import ModelConfig
from shoestring.infer.sampling import GREEDY, Chooser, Sampling
from shoestring.infer.step import step
from shoestring.measure import Hardware
from shoestring.measure.calibration import timed
from shoestring.measure.fitting import fit_units
from shoestring.model import Cache, Transformer

READ_BYTES = 1 << 28
"""Weights that one round of the read probe goes through: more than a processor's cache holds."""


VOCABULARY = 4096
ROWS = 4
"""Answers at one time of the timed steps."""
DRAWN = Sampling(temperature=0.8, top_p=0.95)


@torch.inference_mode()
def probe(hardware: Hardware) -> dict[str, float]:
    """Seconds of a byte that matrix-vector products read, for a layer's operators to start, of a step outside the layers, of a
    logit among which a token is drawn. About 3 s.
    """
    shapes = ((8, GREEDY), (2, GREEDY), (2, DRAWN))
    units, _ = fit_units([_counts(*shape) for shape in shapes], [_step(hardware.device, *shape) for shape in shapes])
    return {"infer.moved": _read(hardware.device), **units}


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


def _counts(layers: int, sampling: Sampling) -> dict[str, float]:
    drawn = 0.0 if sampling.greedy else float(ROWS * VOCABULARY)
    return {"infer.layers": float(layers), "infer.steps": 1.0, "infer.drawn": drawn}


def _step(device: str, layers: int, sampling: Sampling) -> float:
    """Seconds of a step of a model too narrow for its arithmetic to matter: what is left is the cost of starting operators."""
    config = ModelConfig(vocabulary=VOCABULARY, width=64, layers=layers, heads=2, context=128)
    model = Transformer(config).initialise().to(device)
    cache, last_B1 = Cache.of(model, ROWS, 128), torch.zeros(ROWS, 1, dtype=torch.long, device=device)
    chooser, rows = Chooser.of([sampling] * ROWS, last_B1.device), cache.rows(ROWS, length=64)

    def work() -> None:
        step(model, cache, rows, last_B1, chooser, [[0.5]] * ROWS)  # always the same rows, so always the same places

    return timed(work, seconds=0.5, synchronise=lambda: _wait(device))
