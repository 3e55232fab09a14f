"""What training really reaches on this machine: the figures that `train.cost` multiplies.

Real optimizer steps of a few small shapes are timed through the training loop, in rounds, so that a disturbance hits all
shapes a little instead of one shape a lot; each shape's time is the median of its steps. The seconds per unit of each
term are then fitted to the relative errors, none of them negative.
"""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median

import torch

from shoestring.architecture import ModelConfig
from shoestring.data.batch import Batch
from shoestring.measure import Hardware
from shoestring.measure.fitting import fit_units
from shoestring.model import Transformer
from shoestring.train.cost import LOOP_SECONDS, pass_counts
from shoestring.train.loop import train
from shoestring.train.precision import Precision
from shoestring.train.schedule import Plan
from shoestring.train.settings import Training

ProbeShape = tuple[int, int, int, int, int]

# Width, layers, vocabulary, context, sequences: chosen so that each term has a shape in which it weighs much. As many tokens
# as a planned micro-batch: half as many fit a cache better, and predicted bf16 steps a third too short.
CPU_SHAPES: tuple[ProbeShape, ...] = (
    (64, 4, 4096, 256, 8),
    (128, 6, 1024, 128, 16),
    (128, 3, 4096, 512, 4),
    (192, 4, 4096, 256, 8),
    (256, 2, 8192, 256, 8),
    (256, 4, 2048, 256, 8),
    (384, 2, 4096, 256, 8),
)
GPU_SHAPES: tuple[ProbeShape, ...] = (
    (512, 4, 8192, 1024, 32),
    (768, 4, 32768, 1024, 16),
    (768, 2, 8192, 2048, 16),
    (1024, 6, 16384, 1024, 16),
    (1536, 4, 32768, 512, 16),
)
SECONDS = {"cpu": 7.0, "cuda": 3.0}
"""Time for the rounds of one precision, compilation left out; a round that was begun is ended."""
STEPS = {"cpu": 2, "cuda": 8}
"""Steps of each shape in a round, those to warm up left out."""
SLOWER = 1.6
"""How much slower than fp32 the first shape must be in bf16 for that precision to be given up at once."""


def probe(hardware: Hardware) -> dict[str, float]:
    """Seconds per unit of each term, as `train.fp32.matrices` and so on, and the fit's mean error, `train.fp32.error`.

    About 20 s on a CPU: fp32, then bf16 unless this processor is clearly slower in it. On a GPU bf16 alone, with compiled
    blocks, as `pretrain` trains there: most of its minute is compilation.
    """
    if hardware.device == "cuda":
        return figures(GPU_SHAPES, times(GPU_SHAPES, "bf16", "cuda", SECONDS["cuda"]), "bf16")
    found = figures(CPU_SHAPES, times(CPU_SHAPES, "fp32", "cpu", SECONDS["cpu"]), "fp32")
    if hardware.rate("bf16") < hardware.rate("fp32"):  # emulated: a single step would take half a minute
        return found
    middle = CPU_SHAPES[3:4]
    pace = {precision: times(middle, precision, "cpu", 0.0)[0] for precision in ("fp32", "bf16")}
    if pace["bf16"] < SLOWER * pace["fp32"]:
        found |= figures(CPU_SHAPES, times(CPU_SHAPES, "bf16", "cpu", SECONDS["cpu"]), "bf16")
    return found


def times(shapes: tuple[ProbeShape, ...], precision: Precision, device: str, seconds: float) -> list[float]:
    """Median seconds of an optimizer step of each shape, over rounds that take about `seconds` in all."""
    runs = [_Steps(shape, precision, device) for shape in shapes]
    if device == "cuda":
        for run in runs:
            run.take(3)  # compiles
            run.taken.clear()
    begin = time.perf_counter()
    while True:
        for run in runs:
            run.take(STEPS[device])
        if time.perf_counter() - begin >= seconds:
            break
    return [median(run.taken) for run in runs]


def figures(shapes: tuple[ProbeShape, ...], seconds: list[float], precision: Precision) -> dict[str, float]:
    """Seconds per unit of each term, and the fit's error, from the steps' times."""
    rows = [pass_counts(_config(shape), shape[4], shape[3], precision) for shape in shapes]
    units, error = fit_units(rows, [taken - LOOP_SECONDS for taken in seconds])
    return {**units, f"train.{precision}.error": error}


def _config(shape: ProbeShape) -> ModelConfig:
    width, layers, vocabulary, context, _ = shape
    size = 64 if width >= 128 and width % 64 == 0 else 32
    return ModelConfig(vocabulary=vocabulary, width=width, layers=layers, heads=max(1, width // size), context=context)


class _Steps:
    """A model of one shape whose steps can be taken, a few at a time."""

    def __init__(self, shape: ProbeShape, precision: Precision, device: str) -> None:
        config = _config(shape)
        self.model = Transformer(config).initialise(0).to(device)
        self.settings = Training(precision=precision, compile="regional" if device == "cuda" else "none")
        draw = torch.Generator().manual_seed(0)
        tokens_BT = torch.randint(0, config.vocabulary, (shape[4], shape[3] + 1), generator=draw).to(device)
        self.batch: Batch = {"tokens": tokens_BT[:, :-1].contiguous(), "targets": tokens_BT[:, 1:].contiguous()}
        self.device = device
        self.taken: list[float] = []

    def take(self, steps: int) -> None:
        """Take steps and note their seconds: each alone on a CPU, their mean on a GPU, which runs ahead of the host."""
        marks: list[float] = []

        def batches(step: int) -> Batch:
            marks.append(time.perf_counter())
            return self.batch

        # A few steps more than are counted: the first makes the optimizer's state.
        train(self.model, batches, Plan(steps + 1, 1e-4), settings=self.settings)
        if self.device == "cuda":
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        if self.device == "cuda":
            self.taken.append((marks[-1] - marks[1]) / steps)
        else:
            self.taken += [later - earlier for earlier, later in pairwise(marks[1:])]
