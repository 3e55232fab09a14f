"""Writes the page of a run: one HTML file with its style, its data and the chart library inside, that asks no network.

Everything that a run, a text or a model says is escaped by the template; scripts are allowed by their digest alone, so that
nothing in a sample can ever run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from shoestring.artifact import write_whole
from shoestring.drafts import named
from shoestring.errors import FileError, file_error
from shoestring.measure import UNITS, Kind, Quantity, total, written
from shoestring.recipe import budget
from shoestring.recipe.ledger import Row
from shoestring.report import figures, sections
from shoestring.report.charts import charts
from shoestring.report.composition import composition
from shoestring.report.read import Record, read

MARK = b'<meta name="generator" content="shoestring">'
"""Stands at the head of every page of ours."""
LIMITS = {
    "time": ("seconds", "Time"),
    "memory": ("peak_memory", "Memory"),
    "energy": ("energy", "Energy"),
    "money": ("money", "Money"),
}
"""A budget's limits: the figure each one bounds, and its name."""


def write(run_dir: Path, out: Path | None = None) -> Path:
    """Write the report of a run or a composition.

    Args:
        run_dir: the folder that `recipe.run` or `explore.compose` wrote; a run that was stopped is shown as far as it came.
        out: the file to write, `report.html` in the folder when not given.

    Raises:
        FileError: the folder holds no run, a record of it is damaged, the page can't be written, or something else than a page
            of ours stands there.
    """
    record = read(Path(run_dir))
    page = _page(Path(run_dir) / "report.html" if out is None else out)
    write_whole(page, render(record))
    return page


def _page(path: Path | str) -> Path:
    """The path, when a page may be written there: nothing is there yet, or a page of ours."""
    page = named(path)
    if not os.path.lexists(page):
        return page
    ours = False
    if page.is_file() and not page.is_symlink():
        try:
            with page.open("rb") as stream:
                ours = MARK in stream.read(4096)
        except OSError as error:
            raise file_error(page, error) from error
    if not ours:
        raise FileError(f"{page}: is there already and no report of shoestring's; it is not written over: choose another --out")
    return page


def render(record: Record) -> str:
    """The whole page as text."""
    import jinja2
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = charts(record)
    scripts = {"plotly": _plotly(), "script": (here / "page.js").read_text("utf-8")} if drawn else {}
    safe = {name: Markup(text) for name, text in scripts.items()}
    return environment.get_template("page.html").render(
        **view(record, drawn),
        **safe,
        style=Markup((here / "style.css").read_text("utf-8")),
        charts_json=Markup(_embedded(drawn)),
        script_hashes=" ".join(f"'sha256-{_digest(text)}'" for text in scripts.values()) or "'none'",
    )


def view(record: Record, drawn: dict[str, Any]) -> dict[str, Any]:
    """What the template shows, as plain data and quantities."""
    rows = record.rows
    used = total(row.measured for row in rows)
    cost_charts = [(f"cost-{key}", name) for key, name in (("seconds", "Time"), ("energy", "Energy"), ("money", "Money"))]
    shown = {
        "name": record.name,
        "headline": sections.headline(record),
        "banner": _banner(record),
        "tiles": sections.tiles(record, used) if rows else [],
        "newest": sections.newest(record),
        "bars": bars(record) if rows else [],
        "budget_note": _budget_note(record),
        "rows": [_row(row) for row in rows],
        "totals": figures.totals(rows) if rows else [],
        "changes": sections.changes(record),
        "reused": any(row.reused for row in rows),
        "chart_ids": set(drawn),
        "cost_charts": [entry for entry in cost_charts if entry[0] in drawn],
        "compose": composition(record.compose) if record.compose else None,
        "plans": sections.plans(record),
        "corpora": sections.corpora(record),
        "samples": sections.samples(record),
        "recipe": record.recipe,
        "versions": list((record.run or record.compose or {}).get("versions", {}).items()),
    }
    titles = {
        "newest": ("model", "Model"),
        "bars": ("budget", "Budget"),
        "rows": ("ledger", "Ledger"),
        "changes": ("changes", "Changes"),
        "chart_ids": ("charts", "Charts"),
        "compose": ("composition", "Composition"),
        "plans": ("plan", "Plan"),
        "corpora": ("corpus", "Text"),
        "samples": ("samples", "Samples"),
        "recipe": ("recipe", "Recipe"),
    }
    listed = [title for key, title in titles.items() if shown[key] and (key != "chart_ids" or rows)]
    helpers = {
        "columns": figures.COLUMNS,
        "marks": figures.MARKS,
        "kinds": list(Kind),
        "text": figures.text,
        "written": written,
        "exact": figures.exact,
        "reason": figures.reason,
        "ratio_text": figures.ratio_text,
        "nearness": lambda ratio: "near" if 0.85 <= ratio <= 1.15 else "off" if 0.5 <= ratio <= 2 else "far",
    }
    return {**shown, "sections": listed, **helpers}


def bars(record: Record) -> list[dict[str, Any]]:
    """A bar per resource that a budget can bound: limit, prediction and use on one scale."""
    predicted = total(row.predicted for row in record.rows)
    measured = total(row.measured for row in record.rows)
    found = []
    for key, (figure, label) in LIMITS.items():
        limit = _limit(record, key, UNITS[figure])
        foreseen, used = getattr(predicted, figure), getattr(measured, figure)
        most = max((q.value or 0.0) for q in (limit, foreseen, used) if q is not None)
        if not most:
            continue

        def share(quantity: Quantity | None, most: float = most) -> float | None:
            known = quantity is not None and quantity.value is not None
            return round(100 * (quantity.value or 0.0) / most, 2) if known and quantity is not None else None

        over = limit is not None and used.value is not None and used.value > (limit.value or 0.0)
        part = round(100 * used.value / limit.value) if limit is not None and limit.value and used.value is not None else None
        found.append(
            {
                "figure": figure,
                "label": label,
                "limit": limit,
                "predicted": foreseen,
                "measured": used,
                "over": over,
                "share": part,
                "limit_share": share(limit),
                "predicted_share": share(foreseen),
                "measured_share": share(used),
            }
        )
    return found


def _limit(record: Record, key: str, unit: str) -> Quantity | None:
    """A limit of the budget, written as a number or as people write it."""
    value = ((record.run or {}).get("budget") or {}).get(key)
    if value is None:
        return None
    number = float(value) if isinstance(value, int | float) else getattr(budget({key: value}), key)
    return Quantity(number, unit, Kind.ASSUMED, "the recipe's budget")


def _row(row: Row) -> dict[str, Any]:
    settings = ", ".join(f"{key}: {value}" for key, value in row.settings.items())
    return {
        "step": row.step,
        "about": "automatic" if row.automatic else row.room if row.step == row.technique else f"{row.technique}, {row.room}",
        "settings": settings or "no settings",
        "automatic": row.automatic,
        "reused": row.reused,
        "cells": figures.cells(row),
    }


def _banner(record: Record) -> str:
    if record.finished:
        return ""
    done = f"{len(record.rows)} steps are done" if len(record.rows) != 1 else "1 step is done"
    return f"This run has not come to its end: {done}. The same command goes on where it stopped."


def _budget_note(record: Record) -> str:
    fresh = [row for row in record.rows if not row.reused]
    if len(fresh) == len(record.rows):
        return "What the whole recipe used, against what was foreseen and what was allowed."
    spent = total(row.measured for row in fresh).seconds if fresh else None
    own = f"this run itself took {figures.text(spent)}" if spent is not None else "this run did nothing anew"
    return f"What the whole recipe uses, steps from the store at the cost of when they were made; {own}."


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    assert "</script" not in source
    return source


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _embedded(data: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can close the element or open a comment."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
