"""From a budget to a model and its training: the best shape of a ladder, with as many tokens as the budget pays for.

For each shape the steps after the plan are asked what they would use, training among them; use grows linearly with the
tokens, so two questions give the tokens that fit. Of the shapes that fit, the one with the least loss by the law is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shoestring.errors import BudgetError, SettingError
from shoestring.measure import Hardware, Usage, human
from shoestring.model import ModelConfig
from shoestring.model.cost import linear_parameters, parameters
from shoestring.plan.laws import LAWS, batch_tokens, effective_tokens, learning_rate
from shoestring.technique import Sketch
from shoestring.train import TrainingPlan
from shoestring.train.cost import faster_precision, step_seconds, training_usage

WIDTHS = (64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 8192)
MICRO_BATCH = {"cpu": 16, "cuda": 64}
"""Sequences in memory at one time, at the most."""
WARMUP, DECAY = 0.05, 0.2
"""Shares of the steps (arXiv 2405.18392: a decay of 20 % does as well as a whole cosine)."""
LEAST_STEPS = 20
"""Fewer optimizer steps teach nothing."""

LIMITS = (("time", "seconds", "s"), ("energy", "energy", "J"), ("money", "money", "USD"))
"""Limits that use adds up to: the budget's field, the usage's, the unit."""

Rest = Callable[[Sketch], Usage]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person may fix instead of leaving it to the plan."""

    law: str = "besiroglu"
    context: int = 256
    reserve: float = 0.12
    vocabulary: int = 32_768
    batch: int | None = None
    least_width: int = WIDTHS[0]
    most_width: int = WIDTHS[-1]


def allocate(sketch: Sketch, hardware: Hardware, wishes: Wishes) -> TrainingPlan:
    """The plan of the least predicted loss that stays inside what is left of the budget.

    Args:
        sketch: with `remaining`, and `rest`, which says what the later steps will use; without it training alone counts.

    Raises:
        BudgetError: not even the smallest shape fits; says what is short, and by how much.
    """
    law = LAWS[wishes.law]
    unique = sketch.tokens or math.inf
    rest = sketch.rest or _training_alone(hardware)
    best: tuple[float, TrainingPlan] | None = None
    complaints: list[str] = []
    for config in shapes(sketch.vocabulary or wishes.vocabulary, wishes):
        try:
            tokens, complaint = _tokens_that_fit(config, sketch, rest, hardware, wishes)
        except (
            SettingError
        ) as error:  # a later step can't work on this shape: its group size does not divide the width, say
            tokens, complaint = 0.0, str(error)
        plan = _plan(config, tokens, hardware, wishes)
        if plan is None:
            complaints.append(complaint)
            continue
        loss = law.loss(parameters(config), effective_tokens(plan.tokens, unique))
        if best is not None and loss > best[0] * 1.02:
            break
        best = min(best, (loss, plan), key=lambda pair: pair[0]) if best else (loss, plan)
    if best is None:
        raise BudgetError(f"plan: {complaints[0]}; raise the budget or take steps out")
    return best[1]


def shapes(vocabulary: int, wishes: Wishes) -> Iterator[ModelConfig]:
    """Shapes from small to large: about one layer for 64 of width, at least two, heads of 32 or 64."""
    for width in WIDTHS:
        if wishes.least_width <= width <= wishes.most_width:
            head = 64 if width >= 512 else 32
            layers = max(2, round(width / 64))
            yield ModelConfig(vocabulary=vocabulary, width=width, layers=layers, heads=width // head, context=wishes.context)


def _tokens_that_fit(config: ModelConfig, sketch: Sketch, rest: Rest, hardware: Hardware, wishes: Wishes) -> tuple[float, str]:
    """Tokens that every limit pays for, and what is short where that is less than the least number of steps."""
    least, more = LEAST_STEPS * _batch(config, 0.0, wishes) * config.context, 2e6 + 40 * config.context
    (first, first_tokens), (second, second_tokens) = (
        _asked(config, tokens, sketch, rest, hardware, wishes) for tokens in (float(least), more)
    )
    fits, complaint = math.inf, ""
    for key, resource, unit in LIMITS:
        limit, low, high = getattr(sketch.remaining, key), getattr(first, resource).value, getattr(second, resource).value
        if limit is None or low is None or high is None:
            continue
        limit *= 1 - wishes.reserve
        per_token = max((high - low) / (second_tokens - first_tokens), 1e-30)
        fits = min(fits, first_tokens + (limit - low) / per_token)
        if limit < low:
            complaint = (
                f"budget.{key} is short by {human(low - limit, unit)}: the steps from here on need {human(low, unit)} with "
                f"the smallest model, {human(max(limit, 0.0), unit)} are left (a reserve of {wishes.reserve:.0%} kept)"
            )
    memory, peak = sketch.remaining.memory, first.peak_memory.value
    if memory is not None and peak is not None and peak > memory:
        return (
            0.0,
            f"budget.memory is short by {human(peak - memory, 'B')}: {human(memory, 'B')} given, {human(peak, 'B')} needed",
        )
    if fits is math.inf:
        fits = min(20.0 * parameters(config), 4.0 * (sketch.tokens or math.inf))
    return fits, complaint


def _asked(
    config: ModelConfig, tokens: float, sketch: Sketch, rest: Rest, hardware: Hardware, wishes: Wishes
) -> tuple[Usage, int]:
    """What the later steps will use when this shape reads so many tokens, and how many it then really reads."""
    plan = _plan(config, tokens, hardware, wishes)
    assert plan is not None
    return rest(sketch.with_(plan=plan, model=config)), plan.tokens


def _batch(config: ModelConfig, tokens: float, wishes: Wishes) -> int:
    """Sequences of one optimizer step: a rounded number, so that it splits into equal parts."""
    if wishes.batch is not None:
        return wishes.batch
    wanted = batch_tokens(max(tokens, 1.0)) / config.context
    step = 1 if wanted < 8 else 4 if wanted < 64 else 16
    return max(4, round(wanted / step) * step)


def _plan(config: ModelConfig, tokens: float, hardware: Hardware, wishes: Wishes) -> TrainingPlan | None:
    """Everything else that follows from a shape and its tokens; None when they are too few to learn from."""
    batch = _batch(config, tokens, wishes)
    steps = int(tokens // (batch * config.context))
    if steps < LEAST_STEPS:
        return None
    read = steps * batch * config.context
    micro = next(part for part in range(min(batch, MICRO_BATCH[hardware.device]), 0, -1) if batch % part == 0)
    precision = faster_precision(config, micro, config.context, hardware)
    return TrainingPlan(
        model=config,
        steps=steps,
        batch=batch,
        micro_batch=micro,
        context=config.context,
        learning_rate=float(f"{learning_rate(linear_parameters(config), read):.3g}"),
        warmup=math.ceil(WARMUP * steps),
        decay=round(DECAY * steps),
        precision=precision,
        tokens=read,
        seconds=steps * step_seconds(config, batch, config.context, precision, hardware, micro),
    )


def _training_alone(hardware: Hardware) -> Rest:
    """What training itself will use, where no recipe says what comes after."""

    def rest(sketch: Sketch) -> Usage:
        plan = sketch.plan
        assert isinstance(plan, TrainingPlan)
        return training_usage(plan.model, plan.steps, plan.batch, plan.context, plan.precision, hardware, plan.micro_batch)

    return rest
