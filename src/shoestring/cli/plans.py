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
    count: Annotated[int, typer.Option(min=1, help="Devices of this kind.")] = 1,
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


@plan_app.command("fit")
def plan_fit(
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

    hardware = measure.calibrate(measure.detect(), PROBES, fresh=True)
    record = {"name": hardware.name, "calibrated": hardware.calibrated, "reached": hardware.reached}
    lines = [f"{key:28} {value:.4g}" for key, value in sorted(hardware.reached.items())]
    say(json, record, "\n".join([f"{hardware.name}, calibrated {hardware.calibrated}", *lines]))
