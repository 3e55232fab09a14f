"""The parts of a page that are more than the ledger: headline, final figures, plan, text, samples."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from shoestring.errors import ShoestringError
from shoestring.measure import Kind, Quantity, Usage, counted, human, unknown
from shoestring.plan.explain import shown
from shoestring.report.figures import exact, quality, reason, text
from shoestring.report.read import Record, content, rejects


@dataclass(frozen=True, slots=True)
class Value:
    """A table's cell: what is read, the exact number, where it comes from."""

    text: str
    exact: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: `numbers` names the columns that are set to the right."""

    caption: str
    columns: Sequence[str]
    rows: list[list[Value]]
    numbers: set[str] = field(default_factory=set)


def headline(record: Record) -> list[dict[str, Any]]:
    """What was run, on what, when, for how long."""
    run = record.run or record.compose or {}
    hardware = run.get("hardware") or {}
    parts: list[dict[str, Any]] = []
    if hardware:
        count = hardware.get("count", 1)
        name = f"{count} × {hardware.get('name')}" if count > 1 else str(hardware.get("name"))
        threads = run.get("threads")
        working = f", {threads} thread{'s' if threads != 1 else ''}" if threads else ""
        parts.append({"text": f"on {name}{working}", "strong": True})
        parts.append({"text": _calibration(str(hardware.get("calibrated") or "")), "strong": False})
    if started := _moment(run.get("started")):
        parts.append({"text": f"started {started:%d %B %Y, %H:%M} UTC", "strong": False})
        if ended := _moment(run.get("ended")):
            parts.append({"text": f"took {human((ended - started).total_seconds(), 's')}", "strong": False})
    if record.rows:
        chosen = sum(not row.automatic for row in record.rows)
        parts.append({"text": f"{chosen} steps" if chosen != 1 else "1 step", "strong": False})
    if record.compose is not None:
        parts.append({"text": f"a factorial over {', '.join(record.compose.get('factors', []))}", "strong": True})
    return parts


def tiles(record: Record, used: Usage) -> list[dict[str, Any]]:
    """The final figures: the last model's size and quality, and what it took."""
    found = []
    models = list(record.artifacts("checkpoint"))
    judged = [row for row in record.rows if row.after and quality(row).value is not None]
    if models:
        row, place, about = models[-1]
        found.append(_tile("parameters", "Parameters", parameters(place), _sparsity(about)))
        found.append(_tile("disk", "Model on disk", row.disk, _against(row.disk, half_precision(record))))
    if judged:
        first, last = judged[0], judged[-1]
        note = f"after {last.step}"
        if first is not last:
            note += f"; {text(quality(first), 'bits_per_byte')} after {first.step}"
        found.append(_tile("bits_per_byte", "Bits per byte", quality(last), note))
    found.append(_tile("seconds", "Time", used.seconds, "all steps together"))
    carbon = f"{text(used.carbon)} of CO₂e, {used.carbon.kind}" if used.carbon.value is not None else ""
    found.append(_tile("energy", "Energy", used.energy, carbon))
    found.append(_tile("money", "Money", used.money, used.money.method))
    return found


def parameters(place: Path) -> Quantity:
    """Parameters of a checkpoint, counted from its configuration."""
    from shoestring import model
    from shoestring.architecture import counts

    try:
        return counted(float(counts.parameters(model.read_config(place))), "", "from the model's configuration")
    except (ShoestringError, OSError) as error:
        return unknown("", str(error), Kind.COUNTED)


def half_precision(record: Record) -> float | None:
    """Bytes of the first model at two a weight, as most are published: what sizes are compared with. A model that was
    trained in float32 has twice as many on disk, which no technique has earned."""
    first = next(record.artifacts("checkpoint"), None)
    weights = None if first is None else parameters(first[1]).value
    return None if weights is None else 2.0 * weights


def newest(record: Record) -> dict[str, str] | None:
    """Where the last model is, and what to type next; None when there is none."""
    models = list(record.artifacts("checkpoint"))
    if not models:
        return None
    row, place, _ = models[-1]
    link = record.folder / "model"
    path = link if link.resolve() == place else place
    where = os.path.relpath(path)
    where = where if len(where) < len(str(path.absolute())) else str(path.absolute())
    return {"step": row.step, "path": str(path.absolute()), "where": shlex.quote(where)}


def changes(record: Record) -> Grid | None:
    """What each step did to the quality that was measured before it: after minus before over the same windows and rows."""
    lines = []
    for row in record.rows:
        for name, figure in (row.difference or {}).items():
            low, high = figure.interval or (None, None)
            clear = low is not None and high is not None and not low <= 0 <= high
            lines.append(
                [
                    Value(row.step),
                    Value(name.replace("_", " ").replace(".", ": ")),
                    Value(f"{figure.value:+.4f}", exact(figure), figure.method),
                    Value("" if low is None else f"{low:+.4f} to {high:+.4f}"),
                    Value("beyond the noise of the evaluation" if clear else "not clear"),
                ]
            )
    numbers = {"change", "95 % interval"}
    columns = ["step", "figure", "change", "95 % interval", "verdict within these weights"]
    return Grid("Paired with the step before; one seed", columns, lines, numbers) if lines else None


def plans(record: Record) -> list[Grid]:
    """The formulas of each plan, and what they came to."""
    grids = []
    for row, place, _ in record.artifacts("plan"):
        plan = content(place / "plan.json")
        formulas = [entry for entry in (plan or {}).get("formulas", []) if isinstance(entry, dict)]
        if not formulas:
            continue
        columns = [key for key in dict.fromkeys(key for entry in formulas for key in entry) if key != "unit"]
        values = [[_of_plan(entry, column) for column in columns] for entry in formulas]
        grids.append(Grid(f"{row.step}: {len(formulas)} decisions", [c.replace("_", " ") for c in columns], values, {"value"}))
    return grids


def corpora(record: Record) -> dict[str, Any] | None:
    """A line per corpus step: what it kept by source, what it dropped by reason; and a few of the texts that it dropped."""
    lines: list[list[Value]] = []
    rejected = []
    for row, place, about in record.artifacts("corpus"):
        sources = about.get("sources", {})
        drops = {why: count for why, count in about.get("drops", {}).items() if count}
        lines.append(
            [
                Value(row.step),
                _number(sum(size.get("documents", 0) for size in sources.values())),
                _number(sum(size.get("bytes", 0) for size in sources.values()), "B"),
                _number(sum(drops.values())),
                Value(", ".join(f"{name} ({size.get('documents', 0):,})" for name, size in sources.items())),
                Value(", ".join(f"{why} ({count:,})" for why, count in drops.items()) or "nothing"),
            ]
        )
        if reasons := rejects(place):
            rejected.append({"step": row.step, "reasons": reasons})
    columns = ["Step", "Kept", "Text", "Dropped", "Kept by source", "Dropped because"]
    grid = Grid("Documents and bytes of text after each step", columns, lines, {"Kept", "Text", "Dropped"})
    return {"grid": grid, "rejects": rejected} if lines else None


def samples(record: Record) -> list[dict[str, str]]:
    """What the model wrote, newest artifact last."""
    found = []
    for row, place, _ in record.artifacts("text"):
        samples = [sample for sample in content(place / "samples.json") or [] if isinstance(sample, dict)]
        found += [{"step": row.step, "prompt": str(s.get("prompt", "")), "text": str(s.get("text", ""))} for s in samples]
    return found


def _tile(figure: str, label: str, quantity: Quantity, note: str = "") -> dict[str, Any]:
    return {"figure": figure, "label": label, "quantity": quantity, "note": note}


def _sparsity(about: dict[str, Any]) -> str:
    facts = about.get("facts", {})
    facts_known = []
    if facts.get("sparsity"):
        facts_known.append(f"{facts['sparsity']:.0%} of the matrices' weights are zero")
    if facts.get("bits_per_weight"):
        facts_known.append(f"{facts['bits_per_weight']:.3g} bits per weight")
    return ", ".join(facts_known)


def _calibration(written: str) -> str:
    when, comma, rest = written.partition(", ")
    if len(when) > len("2026-11-22") and (moment := _moment(when)):
        when = f"{moment:%d %B %Y, %H:%M} UTC"
    return f"calibrated {when}{comma}{rest}" if written else "not calibrated"


def _moment(written: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(written)
    except (TypeError, ValueError):
        return None


def _plain(value: Any) -> Value:
    if isinstance(value, dict) and {"value", "unit", "kind"} <= value.keys():
        quantity = Quantity.from_json(value)
        return Value(text(quantity), exact(quantity), reason(quantity))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Value(str(value))
    return Value(f"{value:,}" if isinstance(value, int) else f"{value:.6g}", repr(value))


def _of_plan(entry: dict[str, Any], column: str) -> Value:
    """A field of a formula; the value as the plan itself says it, its exact number kept."""
    value = _plain(entry.get(column, ""))
    return replace(value, text=shown({"unit": "", **entry})) if column == "value" and value.exact else value


def _against(disk: Quantity, half: float | None) -> str:
    if not disk.value or half is None:
        return ""
    ratio = half / disk.value
    return f"{ratio:.2f}× smaller than in bf16" if ratio >= 1 else f"{1 / ratio:.2f}× larger than in bf16"


def _number(value: Any, unit: str = "") -> Value:
    if value is None:
        return Value("")
    return Value(human(value, unit) if unit else f"{value:,}", repr(value))
