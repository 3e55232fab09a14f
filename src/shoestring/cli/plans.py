"""Commands about budgets and machines: what a budget buys, what this machine reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoestring.cli.options import Json, say
from shoestring.errors import SettingError

plan_app = typer.Typer(help="What a budget buys: model size, tokens, batch, learning rate, cost.", invoke_without_command=True)


@plan_app.callback()
def plan(
    context: typer.Context,
    time: Annotated[str | None, typer.Option(help='Such as "5 min" or "2 h".')] = None,
    money: Annotated[str | None, typer.Option(help='Such as "$20".')] = None,
    energy: Annotated[str | None, typer.Option(help='Such as "1 kWh".')] = None,
    memory: Annotated[str | None, typer.Option(help='Such as "8 GB".')] = None,
    device: Annotated[str, typer.Option(help="A name of the device catalogue, or auto for this machine.")] = "auto",
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Devices of this kind.")] = 1,
    json: Json = False,
) -> None:
    """What a budget buys on a device."""
    if context.invoked_subcommand is not None:
        return
    from shoestring import plan as room
    from shoestring.recipe import budget

    limits = {key: value for key, value in (("time", time), ("money", money), ("energy", energy), ("memory", memory)) if value}
    if not limits:
        raise SettingError("plan: give at least one of --time, --money, --energy, --memory")
    estimate = room.estimate(budget(limits), device=device, count=count)
    say(json, estimate.to_json(), estimate.text())


@plan_app.command("law")
@plan_app.command("fit", hidden=True)
def plan_law(
    runs: Annotated[Path, typer.Argument(help="CSV with the columns parameters, tokens, loss.")],
    json: Json = False,
) -> None:
    """Fit a scaling law to runs: constants with intervals, and the error on held-out rows."""
    from shoestring import plan as room

    fitted = room.fit_file(runs)
    say(json, fitted.to_json(), fitted.text())


def calibrate(json: Json = False) -> None:
    """Measure what this machine really reaches, and keep it for predictions."""
    from shoestring import measure
    from shoestring.recipe import PROBES
    from shoestring.report.live import Live

    with Live() as live:
        hardware = measure.calibrate(measure.detect(), PROBES, live.note, fresh=True, progress=live.progress)
    record = {"name": hardware.name, "calibrated": hardware.calibrated, "reached": hardware.reached}
    lines = [f"{key:24} {figure(key, value):>15}  {_meaning(key)[1]}" for key, value in sorted(hardware.reached.items())]
    say(json, record, "\n".join([f"{hardware.name}, calibrated {hardware.calibrated}", *lines]))


_FIGURES = {
    "matmul.": ("FLOP/s", "products of square matrices"),
    "copy": ("B/s", "copying memory, read and written bytes"),
    "text": ("B/s", "splitting text into words, one core"),
    "disk.write": ("B/s", "writing a file, synced"),
    "process.bytes": ("B", "memory of a process that has loaded PyTorch"),
    "infer.moved": ("s/B", "reading weights to multiply a vector"),
    "infer.layers": ("s", "starting the operators of a layer"),
    "infer.steps": ("s", "a step of decoding outside the layers"),
    "infer.drawn": ("s/logit", "drawing a token"),
    "checkpoint.starts": ("s", "opening a checkpoint and its tokenizer"),
    "checkpoint.read": ("s/B", "reading a checkpoint"),
    "checkpoint.written": ("s/B", "writing a checkpoint, with its checksum"),
    "checkpoint.error": ("%", "mean relative error of the three"),
}
"""What the figures of a calibration are, by how their names begin: unit and words."""
_STEPS = {
    "matrices": ("s/FLOP", "a training step: the blocks' matrices"),
    "head": ("s/FLOP", "a training step: the matrix over the vocabulary"),
    "attention": ("s/FLOP", "a training step: scores and sums of attention"),
    "elements": ("s/B", "a training step: element-wise operators"),
    "logits": ("s/logit", "a training step: the loss"),
    "parameters": ("s/parameter", "a training step: the update"),
    "layers": ("s/layer", "a training step: starting the operators of a layer"),
    "error": ("%", "mean relative error of the terms of a training step"),
}
"""The same for the terms of a training step, `train.PRECISION.TERM`."""


def figure(key: str, value: float) -> str:
    """A figure of a calibration with its unit, for people."""
    from shoestring.measure import human

    unit = _meaning(key)[0]
    if unit == "%":
        return f"{value:.1%}"
    return human(value, unit) if unit in ("B", "B/s", "FLOP/s", "s") else f"{value:.3g} {unit}"


def _meaning(key: str) -> tuple[str, str]:
    """Unit and words of a figure."""
    if key.startswith("train."):
        return _STEPS.get(key.rpartition(".")[2], ("", ""))
    return next((meaning for start, meaning in _FIGURES.items() if key.startswith(start)), ("", ""))
