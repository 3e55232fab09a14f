"""The formulas behind a plan: each figure with what it was computed from and where that comes from."""

from __future__ import annotations

import math
from typing import Any

from shoestring.architecture.counts import parameters, training_flops
from shoestring.measure import Hardware, human
from shoestring.plan import rules
from shoestring.plan.allocate import Allocation, Requested
from shoestring.train.cost import calibrated, training_memory

Formula = dict[str, Any]


def explain(allocation: Allocation, hardware: Hardware, requested: Requested) -> tuple[Formula, ...]:
    """Name, value, unit, formula and source of every decision."""
    plan, law, usage = allocation.plan, requested.law, allocation.usage
    config, N = plan.model, parameters(plan.model)
    epochs = plan.tokens / allocation.unique if math.isfinite(allocation.unique) else None
    timed = calibrated(plan.precision, hardware)
    how = "timed steps of small shapes" if timed else "operations / an assumed share of the peak"
    entries: list[tuple[str, float | str, str, str, str]] = [
        ("parameters", float(N), "", f"least {law.name} loss over the ladder of widths", law.source),
        ("width", float(config.width), "", "from the ladder", "plan.shapes"),
        ("layers", float(len(config.layers)), "", "width / 64 + 1", "arXiv 2001.08361, figure 5: shape matters little"),
        ("tokens", float(plan.tokens), "", f"steps x batch x context; {allocation.binding} is what binds", "plan.allocate"),
        ("tokens per parameter", plan.tokens / N, "", "D / N", f"{law.tokens_for(N) / N:.3g} would be optimal by {law.name}"),
    ]
    if epochs is not None:
        worth = "new text" if epochs <= 1 else "repeated text counts less above 4"
        entries.append(("epochs", epochs, "", f"tokens / {allocation.unique:,.0f} unique ones: {worth}", "arXiv 2305.16264"))
    entries += [
        (
            "steps",
            float(plan.steps),
            "",
            f"(limit x {1 - requested.reserve:.2f} - later steps) / cost of a step",
            "plan.allocate",
        ),
        ("batch", float(plan.batch * plan.context), "token", _batch(requested), "set" if requested.batch else rules.STEP_LAW),
        ("learning rate", plan.learning_rate, "", f"1.79 N^-0.713 D^0.307, at most {rules.HIGHEST_RATE:g}", rules.STEP_LAW),
        ("warmup", float(plan.warmup), "step", f"{rules.WARMUP:.0%} of the steps", "assumed"),
        ("decay", float(plan.decay), "step", f"last {rules.DECAY:.0%} of the steps", "arXiv 2405.18392, figure 5"),
        ("precision", plan.precision, "", "set" if requested.precision else "the faster here", how),
        ("time", plan.seconds, "s", f"steps x seconds of a step, from {how}", hardware.calibrated or "not calibrated"),
        (
            "FLOPs",
            training_flops(config, plan.tokens, plan.context),
            "FLOP",
            "3 x forward, head and causal attention in",
            "architecture.counts",
        ),
        (
            "training memory",
            training_memory(config, plan.micro_batch, plan.context, plan.precision, hardware.device),
            "B",
            f"12 bytes a parameter, and gradients or activations of {plan.micro_batch} x {plan.context} tokens",
            "train.cost",
        ),
        ("energy", usage.energy.value or 0.0, "J", usage.energy.method, "assumed watts"),
        ("money", usage.money.value or 0.0, "USD", usage.money.method, "assumed price"),
    ]
    entries.append(_quality(allocation, requested, N))
    keys = ("name", "value", "unit", "formula", "source")
    return tuple(dict(zip(keys, entry)) for entry in entries)


def lines(formulas: tuple[Formula, ...]) -> list[str]:
    """The formulas as text, one a line."""
    return [f"  {f['name']:21} {shown(f):>13}  {f['formula']}  [{f['source']}]" for f in formulas]


def shown(formula: Formula) -> str:
    """A formula's value with its unit, for people."""
    value, unit = formula["value"], formula["unit"]
    if not isinstance(value, (int, float)):
        return str(value)
    if unit in ("s", "B", "USD", "J", "FLOP"):
        return human(float(value), unit)
    if float(value).is_integer():
        return f"{value:,.0f}" + (f" {unit}s" if unit else "")
    return f"{value:.3g}" + (f" {unit}" if unit else "")


def _batch(requested: Requested) -> str:
    return "set" if requested.batch else "0.58 D^0.571 tokens, whole sequences, at least so few that 30 steps remain"


def _quality(allocation: Allocation, requested: Requested, N: int) -> tuple[str, float | str, str, str, str]:
    law = requested.law
    quality = law.bits_per_byte(N, allocation.plan.tokens, allocation.unique)
    if quality is None:
        return (
            "bits per byte",
            "not predicted",
            "",
            f"{N:,} parameters and {allocation.plan.tokens:,} tokens lie far below the runs of this law",
            law.source,
        )
    value, (low, high) = quality
    return ("bits per byte", value, "bit/B", f"E + A/N^a + B/D^b on web text; {low:.2g} to {high:.2g} on others", law.source)
