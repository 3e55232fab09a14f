"""Commands on one model, or on one set of files: data, tune, compress, evaluate, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shoestring.cli import options
from shoestring.cli.options import MOST, Field, Json, Model, Sets, say
from shoestring.errors import SettingError


def data(
    technique: Annotated[str, typer.Argument(help="Such as quality, exact, minhash, tokenize.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="Text, JSON, CSV, Parquet, a folder of these, or a corpus.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The artifact to write.")],
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Apply one data technique to files."""
    from shoestring import data as room
    from shoestring.measure import detect
    from shoestring.report.live import Live

    chosen = options.technique(technique, "data", options.settings(sets))
    with Live() as live:
        report = room.run_on_files(chosen, source, out, detect(), note=live.note, progress=live.progress)
    about = {
        "text bytes" if key == "bytes" else key: value
        for key, value in report["about"].items()
        if isinstance(value, int | float | str)
    }
    lines = [f"{key}: {value}" for key, value in {**report, "about": None, **about}.items() if value is not None]
    dropped = [f"dropped {count} because: {reason}" for reason, count in report["about"].get("drops", {}).items()]
    say(json, report, "\n".join([*lines, *dropped]))


def tune(
    technique: Annotated[str, typer.Argument(help="Such as lora; merge writes a model from an adapter.")],
    model: Model,
    out: Annotated[Path, typer.Argument(help="The checkpoint folder to write.")],
    data: Annotated[str | None, typer.Option("--data", help="Text, or rows of conversations.")] = None,
    field: Field = "text",
    base: Annotated[str | None, typer.Option("--base", help="merge: the base model, instead of the adapter's own.")] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Adapt a model to data, or merge an adapter into its base."""
    from shoestring.tune import holds_messages, merge_adapter

    if technique == "merge":
        if data is not None or sets:
            raise SettingError("tune merge: takes ADAPTER OUT and --base alone; leave --data and --set out")
        made = merge_adapter(model, out, base)
        say(json, {"checkpoint": str(made)}, str(made))
        return
    if base is not None:
        raise SettingError("--base: is for tune merge; the model to adapt stands before OUT")
    if data is None:
        raise SettingError("--data: must be given: a text, or rows of conversations")
    if holds_messages(data):
        _on_model("tune", technique, model, out, [], {"data": data, **options.settings(sets)}, json)
    else:
        _on_model("tune", technique, model, out, _text(data, field), options.settings(sets), json)


def compress(
    technique: Annotated[str, typer.Argument(help="Such as gptq, rtn, wanda, magnitude.")],
    model: Model,
    out: Annotated[Path, typer.Argument(help="The checkpoint folder to write.")],
    calibration: Annotated[str, typer.Option("--calibration", help="Text to calibrate with.")] = "python-stdlib",
    field: Field = "text",
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Shrink a model."""
    _on_model("compress", technique, model, out, _text(calibration, field), options.settings(sets), json)


def evaluate(
    model: Model,
    text: Annotated[Path | None, typer.Option("--text", help="Text for perplexity and bits per byte.")] = None,
    field: Field = "text",
    context: Annotated[int, typer.Option(min=2, max=MOST, help="Tokens of one window.")] = 2048,
    windows: Annotated[int | None, typer.Option(min=1, max=MOST, help="Windows at the most; all when not given.")] = None,
    task: Annotated[list[Path] | None, typer.Option("--task", help="A file of task rows; repeat for more.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=MOST, help="Rows of each task at the most; all when not given.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="A model to be faithful to.")] = None,
    json: Json = False,
) -> None:
    """How good a model is: bits per byte, tasks, fidelity to another model."""
    from shoestring import evaluate as room
    from shoestring import model as models
    from shoestring.report.live import Live

    if text is None and not task:
        raise SettingError("evaluate: give --text FILE, or --task FILE.jsonl, or both")
    if reference is not None and text is None:
        raise SettingError("evaluate: --reference compares on a text; give --text FILE")
    loaded, tokenizer = models.load(model)
    other = None if reference is None else models.load(reference)[0]
    with Live() as live:
        figures = room.measure_model(
            loaded, tokenizer, text, context, windows, task or [], limit, other, live.progress, field, live.note
        )
    lines = [f"{name:40} {figure.value:.4f} {figure.unit}" + _interval(figure) for name, figure in figures.items()]
    say(json, {"model": model, **{name: figure.to_json() for name, figure in figures.items()}}, "\n".join(lines))


def fetch(name: Annotated[str, typer.Argument(help="smollm2-135m, or owner/name.")], json: Json = False) -> None:
    """Bring a pretrained model onto this machine, its checksum proved."""
    from shoestring import model as room

    path = room.fetch(name)
    say(json, {"name": name, "path": str(path)}, str(path))


def _on_model(
    room: str, technique: str, model: str, out: Path, steps: list[dict[str, Any]], settings: dict[str, Any], json: bool
) -> None:
    """One technique on one model: a recipe of a few steps whose last checkpoint becomes OUT."""
    import shutil

    from shoestring import artifact
    from shoestring import recipe as recipes
    from shoestring.model.fetch import is_run, locate
    from shoestring.report.live import Live

    options.technique(technique, room, settings)
    place = _workplace(out)
    source = str(locate(model)) if is_run(Path(model)) else model
    steps = [{"pretrained": {"source": source}}, *steps, {technique: settings}]
    recipe = recipes.build({"name": technique, "steps": steps, "quality": False})
    with Live() as live:
        done = recipes.run(recipe, place / "run", observer=live)
    made = done.state["checkpoint"]
    made.rename(artifact.vacant(out))
    shutil.rmtree(place)
    row = done.rows[-1]
    say(json, {"checkpoint": str(out), "ledger": [each.to_json() for each in done.rows]}, f"{out}  {row.disk}")


def _workplace(out: Path) -> Path:
    """The folder beside OUT in which it is made, and from which a killed command goes on.

    Raises:
        SettingError: a model stands at OUT already. FileError: something else does, or the folder is not ours.
    """
    import shutil

    from shoestring import artifact
    from shoestring.recipe.store import held

    place = artifact.vacant(out).with_name(f".{out.name}.run")
    if place.exists() and {entry.name for entry in place.iterdir()} - {"run", "store"}:
        raise SettingError(f"{place}: {out.name} is made in this folder, and it holds other files; choose another OUT")
    if out.exists() and any(out.iterdir()):
        if place.exists():  # killed after OUT had its name
            with held(place / "run"):
                shutil.rmtree(place)
        raise SettingError(f"{out}: exists already; choose another name or remove it")
    return place


def _text(source: str, field: str) -> list[dict[str, Any]]:
    """The steps that bring a text to a technique as tokens."""
    return [{"corpus": {"source": source, "field": field}}, {"tokenize": {"tokenizer": "checkpoint", "heldout": 0}}]


def _interval(figure: Any) -> str:
    return "" if figure.interval is None else f"  [{figure.interval[0]:.4f}, {figure.interval[1]:.4f}]"
