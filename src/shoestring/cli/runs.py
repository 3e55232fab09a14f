"""Commands on runs: carry out, compose, report; and what can stand in a recipe."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from shoestring.cli.options import Json, Out, Sets, say
from shoestring.errors import FileError, SettingError

BROKEN_BUDGET = 3
"""The exit status of a run that was carried out and took more than its budget allows."""


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the name of one that comes along: quickstart, shrink, gpt2.")],
    out: Out = None,
    sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the predicted ledger only.")] = False,
    json: Json = False,
) -> None:
    """Carry out a recipe; what an earlier run has made already is not done again. Ends with 3 when a limit was passed."""
    from shoestring import recipe as recipes

    loaded = recipes.load_recipe(recipe, sets or [])
    if dry_run:
        _dry_run(loaded, json)
    else:
        _run(loaded, out, json)


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


def compose(
    recipe: Annotated[Path, typer.Argument(help="A recipe.")],
    factors: Annotated[str, typer.Option("--factors", help="Steps to have or leave out, separated by commas.")],
    out: Out = None,
    sets: Sets = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Seeds; with more than one, intervals come from them.")] = 1,
    json: Json = False,
) -> None:
    """Do the gains of steps multiply? Run every combination of them and say."""
    from shoestring import explore
    from shoestring import recipe as recipes
    from shoestring import report as room
    from shoestring.report.live import Live

    loaded = recipes.load_recipe(recipe, sets or [])
    place = out or Path("runs") / f"{loaded.name}-compose"
    with Live() as live:
        found = explore.compose(loaded, [name.strip() for name in factors.split(",")], place, repeats=repeats, observer=live)
    page = room.write(place)
    say(json, {**found.to_json(), "report": str(page)}, f"{explore.text(found)}\n{page}")


def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page to write; report.html in the run when not given.")] = None,
    json: Json = False,
) -> None:
    """Write a run's report: one HTML page that needs nothing else."""
    from shoestring import report as room

    page = room.write(run_folder, out)
    say(json, {"report": str(page)}, str(page))


def techniques(
    name: Annotated[str | None, typer.Argument(help="One technique, or a table such as Training.optimizer.")] = None,
    room: Annotated[str | None, typer.Option("--room", help="Only this room's.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON Schema of recipes, for editors.")] = False,
    write: Annotated[Path | None, typer.Option("--write", help="Write the generated pages of docs into this folder.")] = None,
    json: Json = False,
) -> None:
    """List every technique: its room, what it saves, its paper; or explain one with all its settings."""
    from shoestring import files
    from shoestring.recipe import catalogue, documentation
    from shoestring.recipe.schema import recipe_schema

    if schema:
        print(files.to_json(recipe_schema()))
        return
    if write is not None:
        pages = [str(page) for page in documentation.write(write, Path("benchmarks/results"))]
        say(json, {"written": pages}, "\n".join(pages))
        return
    if name is not None:
        text = catalogue.explain(name)
        entry = next((entry for entry in catalogue.entries() if entry["name"] == name), None)
        say(json, entry or dataclasses.asdict(catalogue.pages()[name]), text)
        return
    entries = catalogue.entries(room)
    lines = [f"{e['room']:9} {e['row']:4} {e['name']:34} {e['does']}" for e in entries]
    say(json, {"techniques": entries}, "\n".join(lines))


def _run(recipe: Any, out: Path | None, json: bool) -> None:
    """Carry out a recipe, write its report, end with the table and the report's path."""
    from shoestring import recipe as recipes
    from shoestring import report as room
    from shoestring.report.live import Live

    place = out or Path("runs") / recipe.name
    with Live() as live:
        if limits := recipes.limits(recipe.budget):
            live.note(f"budget: {limits}")
        done = recipes.run(recipe, place, observer=live)
    page, unwritten = place / "report.html", None
    try:
        room.write(place)
    except FileError as error:  # such as a full disk: the results are shown all the same
        unwritten = error
    broken = recipes.broken(recipe.budget, done.used)
    if json:
        rows = [row.to_json() for row in done.rows]
        model = str(done.state["checkpoint"]) if "checkpoint" in done.state else None
        report = None if unwritten else str(page)
        record = {"run": str(place), "model": model, "report": report, "used": done.used.to_json(), "ledger": rows}
        say(True, {**record, "broken": broken}, "")
    else:
        room.print_table(place)
        if unwritten is None:
            print(f"report:  {page}")
        if "checkpoint" in done.state:
            print("\n".join(_next_steps(place, done.state["checkpoint"])))
    for line in broken:
        print(f"shoestring: {line}", file=sys.stderr)
    if unwritten is not None:
        raise unwritten
    if broken:
        raise typer.Exit(BROKEN_BUDGET)


def _next_steps(run: Path, checkpoint: Path) -> list[str]:
    """Where the model is, and what to type to use it."""
    from shoestring.recipe.link import MODEL
    from shoestring.tokenizer import Tokenizer

    model, name = run / MODEL, shlex.quote(str(run))
    talks = "chat_template" in Tokenizer.open(checkpoint).config
    lines = [f"model:   {model if model.resolve() == checkpoint.resolve() else checkpoint}", "next:"]
    lines += [f"  shoestring chat {name}"] if talks else [f'  shoestring generate {name} --prompt "import "']
    return [*lines, f"  shoestring evaluate {name} --text FILE", f"  shoestring serve {name}"]


def _dry_run(recipe: Any, json: bool) -> None:
    from shoestring import measure
    from shoestring import recipe as recipes
    from shoestring.measure import Kind, no_usage
    from shoestring.plan.explain import lines as formulas
    from shoestring.train import TrainingPlan

    hardware = measure.detect(recipe.device)
    forecasts = recipes.predict(recipe, hardware)
    total = no_usage(Kind.PREDICTED)
    for forecast in forecasts:
        total = total.then(forecast.usage)
    rows = [{"step": f.step.name, "predicted": f.usage.to_json(), "disk": f.disk.to_json()} for f in forecasts]
    plan = next((f.sketch.plan for f in reversed(forecasts) if isinstance(f.sketch.plan, TrainingPlan)), None)
    record = {"recipe": recipe.to_json(), "plan": plan and plan.model_dump(mode="json"), "ledger": rows}
    lines = [] if plan is None else ["plan:", *formulas(plan.formulas), ""]
    lines.append(f"{'step':24} {'time':>12} {'memory':>12} {'energy':>10} {'money':>10} {'disk':>12}")
    for name, usage, disk in [(f.step.name, f.usage, f.disk) for f in forecasts]:
        lines.append(
            f"{name:24} {usage.seconds!s:>12} {usage.peak_memory!s:>12} {usage.energy!s:>10} {usage.money!s:>10} {disk!s:>12}"
        )
    lines.append(f"{'total':24} {total.seconds!s:>12} {total.peak_memory!s:>12} {total.energy!s:>10} {total.money!s:>10}")
    calibrated = hardware.calibrated or "not calibrated: shoestring calibrate makes this closer"
    say(json, {**record, "hardware": hardware.name}, "\n".join([*lines, f"on {hardware.name} ({calibrated})"]))
    recipes.refuse_impossible(recipe, forecasts)
