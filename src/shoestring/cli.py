"""The command line: one command per room. Typed functions with docstrings become commands.

Every command takes `--json` (one JSON object on standard output, everything else on standard error) and ends 0 on success,
2 on a user's mistake (one line, no traceback), 1 on our own fault. Rooms are imported inside the commands, so that
`--help` answers at once.
"""

from __future__ import annotations

import json as json_module
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from shoestring.errors import SettingError, ShoestringError, file_error

app = typer.Typer(
    name="shoestring",
    help="Build, adapt, shrink and serve language models within a budget, and see what every step cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
plan_app = typer.Typer(help="What a budget buys: model size, tokens, batch, learning rate, cost.", invoke_without_command=True)
app.add_typer(plan_app, name="plan")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeat for more.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run; runs/NAME when not given.")]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/quickstart.yaml.")],
    out: Out = None,
    sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the predicted ledger only.")] = False,
    json: Json = False,
) -> None:
    """Carry out a recipe; what an earlier run has made already is not done again."""
    from shoestring import recipe as recipes

    loaded = recipes.load_recipe(recipe, sets or [])
    if dry_run:
        _dry_run(loaded, json)
    else:
        _run(loaded, out, json)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a step that trains.")],
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Carry out a recipe as far as its last step that trains from scratch."""
    from shoestring import recipe as recipes

    loaded = recipes.load_recipe(recipe, sets or [])
    last = max((number for number, step in enumerate(loaded.steps) if step.technique.room == "train"), default=None)
    if last is None:
        raise SettingError(f"{recipe}: has no step that trains; add one such as pretrain")
    names = [step.name for step in loaded.steps[last + 1 :] if step.name != f"evaluate@{loaded.steps[last].name}"]
    _run(loaded.without(names), out, json)


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
    _say(json, estimate.to_json(), estimate.text())


@plan_app.command("fit")
def plan_fit(
    runs: Annotated[Path, typer.Argument(help="CSV with the columns parameters, tokens, loss.")],
    json: Json = False,
) -> None:
    """Fit a scaling law to runs: constants with intervals, and the error on held-out rows."""
    from shoestring import plan as room

    fitted = room.fit_file(runs)
    _say(json, fitted.to_json(), fitted.text())


@app.command()
def data(
    technique: Annotated[str, typer.Argument(help="Such as quality, exact, minhash, tokenize.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="Text, JSONL, Parquet, a folder of these, or a corpus.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The artifact to write.")],
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Apply one data technique to files."""
    from shoestring import data as room
    from shoestring.measure import detect

    chosen = _technique(technique, "data", _settings(sets))
    report = room.run_on_files(chosen, source, out, detect())
    _say(json, report, "\n".join(f"{key}: {value}" for key, value in report.items()))


@app.command()
def tune(
    technique: Annotated[str, typer.Argument(help="Such as lora.")],
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, or a fetched name.")],
    out: Annotated[Path, typer.Argument(help="The checkpoint folder to write.")],
    data: Annotated[str, typer.Option("--data", help="Text, or JSONL or Parquet with messages.")],
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Adapt a model to data."""
    _on_model("tune", technique, model, out, data, sets, json)


@app.command()
def compress(
    technique: Annotated[str, typer.Argument(help="Such as gptq, rtn, wanda, magnitude.")],
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, or a fetched name.")],
    out: Annotated[Path, typer.Argument(help="The checkpoint folder to write.")],
    calibration: Annotated[str, typer.Option("--calibration", help="Text to calibrate with.")] = "python-stdlib",
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Shrink a model."""
    _on_model("compress", technique, model, out, calibration, sets, json)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page to write; report.html in the run when not given.")] = None,
    json: Json = False,
) -> None:
    """Write a run's report: one HTML page that needs nothing else."""
    from shoestring import report as room

    page = room.write(run_folder, out)
    _say(json, {"report": str(page)}, str(page))


@app.command()
def compose(
    recipe: Annotated[Path, typer.Argument(help="A recipe.")],
    factors: Annotated[str, typer.Option("--factors", help="Steps to have or leave out, separated by commas.")],
    out: Out = None,
    sets: Sets = None,
    repeats: Annotated[int, typer.Option(min=1, help="Seeds; with more than one, intervals come from them.")] = 1,
    json: Json = False,
) -> None:
    """Do the gains of steps multiply? Run every combination of them and say."""
    from shoestring import explore
    from shoestring import recipe as recipes
    from shoestring import report as room
    from shoestring.report.live import Live

    loaded = recipes.load_recipe(recipe, sets or [])
    place = out or Path("runs") / f"{loaded.name}-compose"
    live = Live()
    try:
        found = explore.compose(loaded, [name.strip() for name in factors.split(",")], place, repeats=repeats, watch=live)
    finally:
        live.close()
    page = room.write(place)
    _say(json, {**found.to_json(), "report": str(page)}, f"{found.text()}\n{page}")


@app.command()
def techniques(
    room: Annotated[str | None, typer.Option("--room", help="Only this room's.")] = None,
    write: Annotated[Path | None, typer.Option("--write", help="Write catalogue.md and taxonomy.md into this folder.")] = None,
    json: Json = False,
) -> None:
    """List every technique: its room, what it saves, its paper."""
    from shoestring.recipe import catalogue

    if write is not None:
        pages = [str(page) for page in catalogue.write_pages(write, Path("benchmarks/results"))]
        _say(json, {"written": pages}, "\n".join(pages))
        return
    entries = catalogue.entries(room)
    lines = [f"{e['room']:9} {e['row']:4} {e['name']:34} {e['does']}" for e in entries]
    _say(json, {"techniques": entries}, "\n".join(lines))


@app.command()
def calibrate(json: Json = False) -> None:
    """Measure what this machine really reaches, and keep it for predictions."""
    from shoestring import measure
    from shoestring.train.probe import probe

    hardware = measure.calibrate(measure.detect(), {"train": probe})
    record = {"name": hardware.name, "calibrated": hardware.calibrated, "reached": hardware.reached}
    lines = [f"{key:28} {value:.4g}" for key, value in sorted(hardware.reached.items())]
    _say(json, record, "\n".join([f"{hardware.name}, calibrated {hardware.calibrated}", *lines]))


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="smollm2-135m, or owner/name.")], json: Json = False) -> None:
    """Bring a pretrained model onto this machine, its checksum proved."""
    from shoestring import model as room

    path = room.fetch(name)
    _say(json, {"name": name, "path": str(path)}, str(path))


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and status 2."""
    try:
        app(standalone_mode=False)
    except ShoestringError as error:
        _fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os._exit(0)
        if error.filename is None:
            raise
        _fail(str(file_error(error.filename, error)))
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message())


def _run(recipe: Any, out: Path | None, json: bool) -> None:
    """Carry out a recipe, write its report, end with the table and the report's path."""
    from shoestring import recipe as recipes
    from shoestring import report as room
    from shoestring.report.live import Live

    place = out or Path("runs") / recipe.name
    live = Live()
    try:
        done = recipes.run(recipe, place, watch=live)
    finally:
        live.close()
    page = room.write(place)
    if json:
        rows = [row.to_json() for row in done.rows]
        _say(True, {"run": str(place), "report": str(page), "used": done.used.to_json(), "ledger": rows}, "")
    else:
        room.print_table(place)
        print(f"report: {page}")


def _dry_run(recipe: Any, json: bool) -> None:
    from shoestring import measure
    from shoestring import recipe as recipes
    from shoestring.measure import Kind, no_usage

    hardware = measure.detect(recipe.device)
    forecasts = recipes.predict(recipe, hardware)
    total = no_usage(Kind.PREDICTED)
    for forecast in forecasts:
        total = total.then(forecast.usage)
    rows = [{"step": f.step.name, "predicted": f.usage.to_json(), "disk": f.disk.to_json()} for f in forecasts]
    planned = [f.sketch.plan for f in forecasts if f.sketch.plan is not None]
    record = {"recipe": recipe.to_json(), "plan": planned[-1].model_dump(mode="json") if planned else None, "ledger": rows}
    lines = [f"{'step':24} {'time':>12} {'memory':>12} {'energy':>10} {'money':>10} {'disk':>12}"]
    for name, usage, disk in [(f.step.name, f.usage, f.disk) for f in forecasts]:
        lines.append(
            f"{name:24} {usage.seconds!s:>12} {usage.peak_memory!s:>12} {usage.energy!s:>10} {usage.money!s:>10} {disk!s:>12}"
        )
    lines.append(f"{'total':24} {total.seconds!s:>12} {total.peak_memory!s:>12} {total.energy!s:>10} {total.money!s:>10}")
    calibrated = hardware.calibrated or "not calibrated: shoestring calibrate makes this closer"
    _say(json, {**record, "hardware": hardware.name}, "\n".join([*lines, f"on {hardware.name} ({calibrated})"]))
    recipes.refuse_impossible(recipe, forecasts)


def _on_model(room: str, technique: str, model: str, out: Path, text: str, sets: list[str] | None, json: bool) -> None:
    """One technique on one model: a recipe of a few steps whose last checkpoint becomes OUT."""
    import shutil

    from shoestring import recipe as recipes
    from shoestring.report.live import Live

    if out.exists():
        raise SettingError(f"{out}: exists already; choose another name or remove it")
    _technique(technique, room, _settings(sets))
    steps = [{"pretrained": {"source": model}}, {"corpus": {"source": text}}, {"tokenize": {"tokenizer": "checkpoint"}}]
    recipe = recipes.build({"name": technique, "steps": [*steps, {technique: _settings(sets)}], "quality": False})
    place = out.with_name(f".{out.name}.run")
    live = Live()
    try:
        done = recipes.run(recipe, place / "run", watch=live)
    finally:
        live.close()
    made = done.state.need("checkpoint", technique)
    made.rename(out)
    shutil.rmtree(place)
    row = done.rows[-1]
    _say(json, {"checkpoint": str(out), "ledger": [each.to_json() for each in done.rows]}, f"{out}  {row.disk}")


def _technique(name: str, room: str, settings: dict[str, Any]) -> Any:
    from shoestring import recipe as recipes
    from shoestring.errors import nearest
    from shoestring.technique import configure

    here = {key: kind for key, kind in recipes.techniques().items() if kind.room == room}
    if name not in here:
        raise SettingError(f"{room} {name}: no such technique in this room; {nearest(name, here)}")
    return configure(here[name], settings, name)


def _settings(sets: list[str] | None) -> dict[str, Any]:
    """`--set key=value` for one technique."""
    import yaml

    found = {}
    for change in sets or []:
        key, equals, text = change.partition("=")
        if not equals:
            raise SettingError(f"--set {change}: write KEY=VALUE, such as bits=4")
        found[key.strip()] = yaml.safe_load(text)
    return found


def _say(json: bool, record: dict[str, Any], text: str) -> None:
    print(json_module.dumps(record, default=str) if json else text)


def _fail(message: str) -> None:
    print(f"shoestring: {message}", file=sys.stderr)
    sys.exit(2)
