"""What a recipe will cost, before anything runs: the sketch walks through the steps as the state will."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shoestring.errors import BudgetError, SettingError
from shoestring.measure import Hardware, Kind, Quantity, Usage, human, no_usage, predicted, unknown
from shoestring.recipe.recipe import Recipe, Step
from shoestring.technique import NEEDS, Budget, Outlook, Prediction, Sketch, usage_after

_CORPUS_ON_DISK = 0.35
"""Bytes of compressed Parquet per byte of text: measured on the standard library's source, 2026-11."""


LIMITS = (("time", "seconds", "s"), ("memory", "peak_memory", "B"), ("energy", "energy", "J"), ("money", "money", "USD"))
"""Each limit of a budget with the figure of a usage that it limits, and the unit."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one step will use, and what will be known after it."""

    step: Step
    usage: Usage
    disk: Quantity
    sketch: Sketch


def predict(recipe: Recipe, hardware: Hardware, spent: float = 0.0) -> list[Forecast]:
    """A forecast for each step, when so many seconds are spent already; pure arithmetic, nothing is run.

    Raises:
        BudgetError: a step can't be planned within the budget; the message says what is short.
    """
    sketch, used = Sketch(), no_usage(Kind.PREDICTED)
    forecasts: list[Forecast] = []
    for number, step in enumerate(recipe.steps):
        refuse_order(step, forecasts)
        forecast = ahead(step, recipe.steps[number + 1 :], sketch, left(recipe.budget, used, spent), hardware)
        forecasts.append(forecast)
        sketch, used = forecast.sketch, used.then(forecast.usage)
    return forecasts


def refuse_order(step: Step, before: Sequence[Forecast]) -> None:
    """See that no step before spoils what this one needs.

    Raises:
        SettingError: names the step that does, and the order that works.
    """
    for name in step.technique.needs:
        holds, what, spoils = NEEDS[name]
        if not before or holds(before[-1].sketch):
            continue
        earlier = [None, *before[:-1]]
        broken = next(one.step for one, last in zip(before[::-1], earlier[::-1]) if last is None or holds(last.sketch))
        works = f"put {step.name} before {broken.name}"
        if "checkpoint" not in broken.technique.reads:
            works = "start from a checkpoint that is not quantized"
        raise SettingError(f"steps.{step.name}: needs {what}, and steps.{broken.name} {spoils}; {works}")


def ahead(step: Step, later: Sequence[Step], sketch: Sketch, remaining: Budget, hardware: Hardware) -> Forecast:
    """The forecast of one step, which may ask what the steps after it will use."""
    prediction = step.technique.predict(informed(sketch, later, remaining), hardware)
    return Forecast(step, prediction.usage, disk(step.technique.gives, prediction), prediction.sketch)


def informed(sketch: Sketch, later: Sequence[Step], remaining: Budget) -> Sketch:
    """The sketch with what lies before a step."""
    return sketch.with_(outlook=Outlook(remaining, tuple(step.technique for step in later)))


def seconds_left(forecast: Forecast, hardware: Hardware) -> float | None:
    """What the budget's time leaves a step after what the later steps will use; None without a limit."""
    left = forecast.sketch.outlook.remaining.time
    return None if left is None else max(1.0, left - (usage_after(forecast.sketch, hardware).seconds.value or 0.0))


def left(budget: Budget, used: Usage, spent: float = 0.0) -> Budget:
    """What is left of the budget after some use, and seconds spent outside the steps; memory is not used up."""

    def minus(limit: float | None, figure: Quantity) -> float | None:
        return None if limit is None else limit - (figure.value or 0.0)

    return replace(
        budget,
        time=minus(None if budget.time is None else budget.time - spent, used.seconds),
        energy=minus(budget.energy, used.energy),
        money=minus(budget.money, used.money),
    )


def refuse_impossible(recipe: Recipe, forecasts: Sequence[Forecast], spent: float = 0.0) -> None:
    """Compare the whole forecast, and the seconds that are spent already, with the budget.

    Raises:
        BudgetError: every limit that will be passed, with what is short and the dearest step.
    """
    short = []
    for key, resource, unit in LIMITS:
        limit = getattr(recipe.budget, key)
        costs = [(getattr(f.usage, resource).value or 0.0, f.step.name) for f in forecasts]
        total = max(costs)[0] if key == "memory" else sum(cost for cost, _ in costs) + (spent if key == "time" else 0.0)
        if limit is not None and total > limit:
            dearest = max(costs)
            short.append(
                f"budget.{key}: {human(limit, unit)} is short by {human(total - limit, unit)}; the steps need "
                f"{human(total, unit)}, most of it {dearest[1]} ({human(dearest[0], unit)})"
            )
    if short:
        raise BudgetError("; ".join(short) + "; raise the limit or take steps out")


def limits(budget: Budget) -> str:
    """The limits of a budget in words; "" without any."""
    found = [(key, getattr(budget, key), unit) for key, _, unit in LIMITS]
    return ", ".join(f"{key} {human(limit, unit)}" for key, limit, unit in found if limit is not None)


def broken(budget: Budget, used: Usage) -> list[str]:
    """A line for each limit of the budget that was passed after all."""
    lines = []
    for key, resource, unit in LIMITS:
        limit, figure = getattr(budget, key), getattr(used, resource)
        if limit is not None and figure.value is not None and figure.value > limit:
            over = f"{human(figure.value, unit)} ({figure.kind})"
            lines.append(f"budget.{key}: {human(limit, unit)} was passed by {figure.value / limit - 1:.1%}, the run took {over}")
    return lines


def disk(part: str, prediction: Prediction) -> Quantity:
    """Bytes that the step's artifact will take."""
    sketch = prediction.sketch
    if part == "checkpoint" and sketch.disk_bytes is not None:
        return predicted(sketch.disk_bytes, "B", "weights at their bits")
    if part == "corpus" and sketch.text_bytes is not None:
        return predicted(sketch.text_bytes * _CORPUS_ON_DISK, "B", f"{_CORPUS_ON_DISK:g} of the text, compressed")
    if part == "tokens" and sketch.tokens is not None and sketch.vocabulary is not None:
        width = 2 if sketch.vocabulary <= 65536 else 4
        return predicted((sketch.tokens + (sketch.heldout_tokens or 0.0)) * width, "B", f"{width} bytes a token")
    return unknown("B", "a few kB at the most", Kind.PREDICTED)
