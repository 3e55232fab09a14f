"""How each figure of a plan was found, and who says so: the formulas that are printed and kept with it."""

from __future__ import annotations

import math

from shoestring.measure import Hardware, human
from shoestring.model.cost import parameters, training_flops
from shoestring.plan.allocate import DECAY, WARMUP, Wishes
from shoestring.plan.laws import LAWS
from shoestring.technique import Budget, Sketch
from shoestring.train import TrainingPlan

Line = dict[str, object]


def explained(plan: TrainingPlan, sketch: Sketch, hardware: Hardware, wishes: Wishes) -> TrainingPlan:
    """The plan with a line for each figure: name, value, unit, formula, source."""
    return plan.model_copy(update={"formulas": (*_sizes(plan, sketch, wishes), *_pace(plan, hardware))})


def shown(line: Line) -> str:
    """One such line for people."""
    value = line["value"]
    plain = f"{value:.4g}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}"
    figure = human(float(value), str(line["unit"])) if line["unit"] and isinstance(value, float | int) else plain
    return f"{line['name']} = {figure}: {line['formula']} [{line['source']}]"


def _line(name: str, value: float, unit: str, formula: str, source: str) -> Line:
    return {"name": name, "value": value, "unit": unit, "formula": formula, "source": source}


def _sizes(plan: TrainingPlan, sketch: Sketch, wishes: Wishes) -> list[Line]:
    config, law, N, D = plan.model, LAWS[wishes.law], parameters(plan.model), plan.tokens
    unique = sketch.tokens or math.inf
    flops = training_flops(config, D)
    best_N, best_D = law.optimum(flops)
    limits = f"{_limits(sketch.remaining)}, reserve {wishes.reserve:.0%}"
    shape = f"width {config.width}, {config.layers} layers, vocabulary {config.vocabulary}"
    best = f"the optimum for these operations is N {best_N:.3g}, D {best_D:.3g}"
    paid = f"what the limits pay for at this shape, {D / N:.1f} a parameter; {best}"
    epochs = D / unique if unique < math.inf else 1.0
    return [
        _line("parameters", N, "", f"{shape}: least L(N, D') of the ladder within {limits}", law.source),
        _line("tokens", D, "", paid, law.source),
        _line("epochs", epochs, "", "D / U; D' = U + U r (1 - exp(-(D/U - 1)/r)), r = 15.39", "arXiv 2305.16264"),
        _line("operations", flops, "FLOP", "3 x forward, attention's causal half counted", "model.cost"),
    ]


def _pace(plan: TrainingPlan, hardware: Hardware) -> list[Line]:
    step_law = "Step Law, arXiv 2503.04715"
    rate = "1.79 N^-0.713 D^0.307, N without embedding, within 1e-4 to 1e-2"
    timed = "timed on this machine" if hardware.calibrated else "from an assumed share of the peak"
    return [
        _line("batch", plan.batch * plan.context, "", "0.58 D^0.571 tokens, rounded to whole sequences", step_law),
        _line("steps", plan.steps, "", "tokens / batch", "arithmetic"),
        _line("learning rate", plan.learning_rate, "", rate, step_law),
        _line("warm-up", plan.warmup, "", f"{WARMUP:.0%} of the steps", "assumed"),
        _line("decay", plan.decay, "", f"{DECAY:.0%} of the steps, 1 - sqrt", "arXiv 2405.18392"),
        _line("training time", plan.seconds, "s", f"steps x the time of one in {plan.precision}, {timed}", "train.cost"),
    ]


def _limits(remaining: Budget) -> str:
    units = {"time": "s", "memory": "B", "energy": "J", "money": "USD"}
    given = {key: getattr(remaining, key) for key in units}
    said = [f"{key} {human(value, units[key])}" for key, value in given.items() if value is not None]
    return ", ".join(said) or "no limit"
