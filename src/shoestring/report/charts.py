"""The charts of a page as plotly figures in plain data: `{"data": [...], "layout": {...}}`.

Colours are names of the page's style sheet, `var(--series-1)`; the page's script puts in what they mean in light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log, log10
from typing import Any

from shoestring.measure import Kind, Quantity, human
from shoestring.report.figures import COLUMNS, pair, quality, ratio_text, text
from shoestring.report.read import Record, training
from shoestring.report.sections import half_precision

Chart = dict[str, Any]
MOST_POINTS = 1200
RESOURCES = ("seconds", "flops", "peak_memory", "disk", "bits_per_byte", "energy", "communication")
"""What is drawn of predictions; money is time times a price, and energy too where it is not measured: they would hide time."""
COSTS = {"seconds": ("time", "seconds"), "energy": ("energy", "joules"), "money": ("money", "US dollars")}
LOSSES = {"learning": "loss (nats per token)", "distance": "distance from the teacher (nats per token)"}
"""The kinds of loss that are drawn, each on a chart of its own, and what its axis is called."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x")


def charts(record: Record) -> dict[str, Chart]:
    """All charts that a record has figures for, by the id of their place in the page."""
    found = {f"loss-{kind}": loss(record, kind) for kind in LOSSES}
    found |= {"size": quality_against_size(record), "prediction": prediction(record)}
    found |= {f"cost-{key}": quality_against_cost(record, key) for key in COSTS}
    if record.compose is not None:
        found["interaction"] = interaction(record.compose)
    return {name: chart for name, chart in found.items() if chart is not None}


def loss(record: Record, kind: str) -> Chart | None:
    """Loss of one kind against tokens (steps, where tokens are not logged), a line per step of the recipe that trains.

    A distillation's loss is a distance from its teacher, near 0 where a cross-entropy is near 2: each kind has its own axis.
    """
    lines = [
        (row.step, steps)
        for row, place, _ in record.artifacts("checkpoint")
        if (row.room == "compress") == (kind == "distance") and (steps := training(place))
    ]
    if not lines:
        return None
    tokens = all(isinstance(step.get("tokens"), int | float) for _, steps in lines for step in steps)
    traces = []
    for number, (name, steps) in enumerate(lines):
        steps = thin(steps)
        across = [step["tokens"] if tokens else step.get("step", place) for place, step in enumerate(steps)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines" if len(steps) > 1 else "markers",
                "name": name,
                "x": across,
                "y": [step["loss"] for step in steps],
                "line": {"color": _colour(number), "width": 2},
                "hovertemplate": "%{y:.4f} at %{x:.4s}" + ("" if tokens else " steps"),
            }
        )
    return _chart(traces, "tokens learned from" if tokens else "optimizer step", LOSSES[kind], legend=len(traces) > 1)


def quality_against_size(record: Record) -> Chart | None:
    """Bits per byte of each checkpoint against its bytes on disk."""
    rows = [row for row in record.rows if row.after and row.disk.value and quality(row).value is not None]
    if not rows:
        return None
    labels, half = [text(row.disk) for row in rows], half_precision(record)
    steps, sizes, bits = [r.step for r in rows], [r.disk.value or 0.0 for r in rows], [quality(r) for r in rows]
    chart = _chart([_path(steps, sizes, bits, labels, 0)], "bytes on disk", "bits per byte")
    chart["layout"]["xaxis"] |= _bytes_axis(max([*sizes, half or 0.0]))
    chart["layout"]["annotations"] = _names(steps, sizes, bits)
    if half is not None:
        chart["layout"]["shapes"] = [{**_one(half), "line": {"color": "var(--soft)", "width": 1, "dash": "dash"}}]
        chart["layout"]["annotations"].append(
            {"x": half, "y": 1, "yref": "paper", "yanchor": "bottom", "text": "bf16", "showarrow": False}
        )
    return chart


def quality_against_cost(record: Record, figure: str) -> Chart | None:
    """Bits per byte of each checkpoint against what all steps up to it used; the automatic evaluations are left out."""
    spent, steps, costs, bits, labels = 0.0, [], [], [], []
    for row in record.rows:
        if row.automatic:
            continue
        spent += pair(row, figure)[1].value or 0.0
        if row.after and quality(row).value is not None:
            steps.append(row.step)
            costs.append(spent)
            bits.append(quality(row))
            labels.append(text(replace(pair(row, figure)[1], value=spent)))
    if not steps or not spent:
        return None
    name, unit_name = COSTS[figure]
    chart = _chart([_path(steps, costs, bits, labels, 1)], f"{name} spent up to there ({unit_name})", "bits per byte")
    chart["layout"]["xaxis"] |= {"rangemode": "tozero", **({"tickprefix": "$"} if figure == "money" else {})}
    chart["layout"]["annotations"] = _names(steps, costs, bits)
    return chart


def prediction(record: Record) -> Chart | None:
    """Measured over predicted, per step and resource, on a logarithmic axis with the 15 % band."""
    rows = [row for row in record.rows if not row.automatic]
    traces: list[dict[str, Any]] = []
    for number, figure in enumerate(RESOURCES):
        steps, ratios, labels = [], [], []
        for row in rows:
            expected, found = pair(row, figure)
            if expected.value and found.value and (figure != "energy" or found.kind is Kind.MEASURED):
                steps.append(row.step)
                ratios.append(found.value / expected.value)
                labels.append(f"{text(found)} measured, {text(expected)} predicted ({ratio_text(ratios[-1])})")
        if steps:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": COLUMNS[figure],
                    "x": ratios,
                    "y": steps,
                    "customdata": labels,
                    "marker": {"color": _colour(number), "size": 11, "symbol": SYMBOLS[number], "opacity": 0.9},
                    "hovertemplate": f"%{{y}}, {COLUMNS[figure].lower()}: %{{customdata}}<extra></extra>",
                }
            )
    if not traces:
        return None
    named = {step for trace in traces for step in trace["y"]}
    chart = _chart(traces, "measured / predicted", "", legend=True)
    chart["layout"]["xaxis"] |= _ratio_axis([ratio for trace in traces for ratio in trace["x"]])
    chart["layout"]["yaxis"] |= {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [row.step for row in reversed(rows) if row.step in named],
        "title": {"text": ""},
    }
    chart["layout"]["shapes"] = [_band(0.85, 1.15), _one()]
    chart["height"] = 170 + 30 * len(named)
    return chart


def interaction(compose: dict[str, Any]) -> Chart | None:
    """Measured combination over the product of gains, per figure, with its interval."""
    found = [entry for entry in compose.get("combinations", []) if entry.get("interaction")]
    if not found:
        return None
    names = [COLUMNS.get(entry["figure"], entry["figure"]) for entry in found]
    middles = [entry["interaction"] for entry in found]
    ends = [entry["interval"] or [middle, middle] for entry, middle in zip(found, middles)]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": middles,
        "y": names,
        "marker": {"color": _colour(0), "size": 11},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [high - middle for middle, (_, high) in zip(middles, ends)],
            "arrayminus": [middle - low for middle, (low, _) in zip(middles, ends)],
            "color": _colour(0),
            "thickness": 2,
        },
        "hovertemplate": "%{y}: ×%{x:.3f}<extra></extra>",
    }
    chart = _chart([trace], "together / product of gains", "")
    chart["layout"]["xaxis"] |= _ratio_axis([bound for pair_ in ends for bound in pair_])
    chart["layout"]["yaxis"] |= {"type": "category", "autorange": "reversed", "title": {"text": ""}}
    chart["layout"]["shapes"] = [_one()]
    chart["height"] = 130 + 34 * len(names)
    return chart


def thin(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most about `MOST_POINTS` logged steps, evenly spaced, the last always among them."""
    stride = -(-len(steps) // MOST_POINTS) or 1
    kept = list(steps[::stride])
    return kept if not steps or (len(steps) - 1) % stride == 0 else [*kept, steps[-1]]


def _path(
    steps: Sequence[str], across: Sequence[float], bits: Sequence[Quantity], labels: Sequence[str], colour: int
) -> dict[str, Any]:
    """Checkpoints in the order in which they were made. Without bars of their intervals: these hold how hard the windows are,
    which is the same for all; what a step changed beyond noise stands in the table of changes."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(across),
        "y": [figure.value for figure in bits],
        "text": list(steps),
        "customdata": list(labels),
        "line": {"color": _colour(colour), "width": 1.5, "dash": "dot"},
        "marker": {"color": _colour(colour), "size": 11},
        "hovertemplate": "%{text}: %{y:.4f} bits per byte, %{customdata}<extra></extra>",
    }


def _names(steps: Sequence[str], across: Sequence[float], bits: Sequence[Quantity]) -> list[dict[str, Any]]:
    """The checkpoints' names beside their points, on a ground that hides the lines, one above the other where points meet."""
    ends = [figure.value or 0.0 for figure in bits]
    pixels = 250 / ((max(ends) - min(ends)) or 1.0)
    widest = max(across)
    placed: list[tuple[float, float]] = []
    found = []
    for name, place, figure in zip(steps, across, bits):
        height, shift = (figure.value or 0.0) * pixels, 9
        while any(abs(place - x) < widest / 4 and abs(height + shift - y) < 16 for x, y in placed):
            shift += 8
        placed.append((place, height + shift))
        left = place <= widest / 2
        found.append(
            {
                "x": place,
                "y": figure.value,
                "text": name,
                "showarrow": False,
                "xanchor": "left" if left else "right",
                "xshift": 9 if left else -9,
                "yshift": shift,
                "bgcolor": "var(--raised)",
                "borderpad": 1,
                "opacity": 0.9,
            }
        )
    return found


def _chart(traces: list[dict[str, Any]], across: str, up: str, *, legend: bool = False) -> Chart:
    line = {"gridcolor": "var(--rule)", "linecolor": "var(--rule)", "zerolinecolor": "var(--rule)", "automargin": True}
    layout = {
        "xaxis": {**line, "title": {"text": across}},
        "yaxis": {**line, "title": {"text": up}},
        "showlegend": legend,
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        "margin": {"l": 12, "r": 16, "t": 24, "b": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--ink)", "size": 13},
        "hoverlabel": {"bgcolor": "var(--raised)", "bordercolor": "var(--rule)", "font": {"color": "var(--ink)"}},
        "dragmode": False,
    }
    return {"data": traces, "layout": layout, "height": 380}


def _ratio_axis(ratios: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis that holds 1 and all ratios, ticked at plain factors."""
    low, high = min([*ratios, 0.8]) / 1.1, max([*ratios, 1.25]) * 1.1
    steps = [10.0**power * digit for power in range(-6, 7) for digit in (1, 2, 5)]
    steps += (0.7, 0.8, 0.9, 1.1, 1.25) if high / low < 2 else (0.3, 0.7, 1.4, 3.0) if high / low < 12 else ()
    steps = sorted(set(steps))
    ticks = [tick for tick in steps if low <= tick <= high]
    labels = [f"×{tick:.3g}" for tick in ticks]
    return {"type": "log", "range": [log10(low), log10(high)], "tickvals": ticks, "ticktext": labels, "tickangle": 0}


def _bytes_axis(most: float) -> dict[str, Any]:
    """An axis from 0 whose ticks are plain numbers of the unit that the table uses (MiB, not MB)."""
    unit = 1024.0 ** max(0, int(log(max(most, 1.0), 1024)))
    step = next(size for size in (n * 10.0**power for power in range(-1, 4) for n in (1, 2, 5)) if most / unit / size <= 6)
    ticks = [number * step * unit for number in range(int(most / unit / step) + 2)]
    labels = ["0", *(human(tick, "B") for tick in ticks[1:])]
    return {"tickvals": ticks, "ticktext": labels, "rangemode": "tozero"}


def _one(place: float = 1) -> dict[str, Any]:
    line = {"color": "var(--ink)", "width": 1}
    ends = {"x0": place, "x1": place, "y0": 0, "y1": 1}
    return {"type": "line", "xref": "x", "yref": "paper", **ends, "line": line, "layer": "below"}


def _band(low: float, high: float) -> dict[str, Any]:
    place = {"type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1}
    return {**place, "fillcolor": "var(--band)", "line": {"width": 0}, "layer": "below"}


def _colour(number: int) -> str:
    return f"var(--series-{number % 6 + 1})"
