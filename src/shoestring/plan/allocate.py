"""From what is left of a budget to a model, tokens, steps and rates: each shape of the ladder gets as many tokens as the
budget allows it, and the one with the least expected loss wins.

    steps(shape) = least over the limits of (limit x (1 - reserve) - what later steps cost) / cost of a step
    choice       = the shape with the least L(N, D) on the tokens there are
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import linear_parameters, parameters
from shoestring.errors import BudgetError, SettingError, ShoestringError
from shoestring.measure import Hardware, Usage, base_bytes, human
from shoestring.plan import rules
from shoestring.plan.laws import BESIROGLU, Law
from shoestring.plan.shapes import shape, widths
from shoestring.technique import Sketch, usage_after
from shoestring.train.cost import faster_precision, training_memory, training_usage
from shoestring.train.precision import Precision
from shoestring.train.training_plan import TrainingPlan

RESOURCES = {"time": ("seconds", "s"), "energy": ("energy", "J"), "money": ("money", "USD")}
"""Limits that more steps use up: the figure of `Usage` and its unit."""


@dataclass(frozen=True, slots=True)
class Requested:
    """What is fixed beforehand.

    Attributes:
        law: constants of the expected loss.
        reserve: share of the budget left unused, for what the predictions miss.
        epochs: how often the text is read at the most.
        context: tokens of a sequence; None takes 256 on a CPU, 1024 on a GPU.
        smallest, largest: widths of the ladder.
        batch: sequences of an optimizer step; None follows Step Law.
        query_groups: query heads that share a key-value head.
        precision: None takes the faster one.
    """

    law: Law = BESIROGLU
    reserve: float = 0.15
    epochs: float = 16.0
    context: int | None = None
    smallest: int = 64
    largest: int = 16384
    batch: int | None = None
    query_groups: int = 1
    precision: Precision | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """What was chosen and what it will use.

    Attributes:
        plan: the model, steps, rates; its `formulas` are still to be filled by `explain`.
        usage: of the training alone. loss: expected, nats per token. unique: different tokens there are.
        binding: the limit that decided.
    """

    plan: TrainingPlan
    usage: Usage
    loss: float
    unique: float
    binding: str


def allocate(sketch: Sketch, hardware: Hardware, requested: Requested | None = None) -> Allocation:
    """The best plan for what is left of the budget.

    Args:
        sketch: with `vocabulary`, `tokens` (None: no end of text) and `outlook` (no later steps known: training alone counts).

    Raises:
        SettingError: nothing limits the training, or the vocabulary isn't known.
        BudgetError: no shape can be trained; says what is short, by how much.
    """
    requested = requested or Requested()
    if sketch.vocabulary is None:
        raise SettingError("plan: the vocabulary isn't known; put a tokenize step before it")
    if all(getattr(sketch.outlook.remaining, field.name) is None for field in fields(sketch.outlook.remaining)):
        raise SettingError("plan: the recipe has no budget to plan for; add one, such as budget: {time: 5 min}")
    found: list[Allocation] = []
    refused: list[ShoestringError] = []
    in_a_row = 0
    for config in _ladder(sketch.vocabulary, hardware, requested):
        try:
            found.append(_Fitting(config, sketch, hardware, requested).best())
            in_a_row = 0
        except ShoestringError as error:
            refused.append(error)
            in_a_row += 1
            # Shapes grow: when several in a row are too dear after one that was not, all later ones are.
            if found and in_a_row >= 3:
                break
    if not found:
        # A limit says more than a setting of a later step (a group size, say) that only the smallest shapes don't suit.
        raise next((error for error in refused if isinstance(error, BudgetError)), refused[0])
    return min(found, key=lambda allocation: allocation.loss)


def _ladder(vocabulary: int, hardware: Hardware, requested: Requested) -> Iterator[ModelConfig]:
    context = requested.context or (256 if hardware.device == "cpu" else 1024)
    ladder = list(widths(requested.smallest, requested.largest)) or [requested.smallest]
    for width in ladder:
        yield shape(width, vocabulary, context, requested.query_groups)


class _Fitting:
    """One shape, given as many steps as the budget allows."""

    def __init__(self, config: ModelConfig, sketch: Sketch, hardware: Hardware, requested: Requested) -> None:
        self.config, self.sketch, self.hardware, self.requested = config, sketch, hardware, requested
        self.parameters = parameters(config)
        self.unique = math.inf if sketch.tokens is None else max(1.0, sketch.tokens)
        self.limits = {
            name: limit * (1 - requested.reserve)
            for name in RESOURCES
            if (limit := getattr(sketch.outlook.remaining, name)) is not None
        }

    def best(self) -> Allocation:
        """Raises BudgetError when this shape can't be trained within the limits."""
        tokens = self.requested.law.tokens_for(self.parameters)
        steps, binding = 0, ""
        for _ in range(8):  # batch follows tokens, the cost of a step follows the batch: it settles in a few rounds
            before = steps
            steps, binding = self.steps(tokens)
            tokens = float(max(1, steps) * self.step_tokens(tokens))
            if steps == before:
                break
        if steps < rules.FEWEST_STEPS:
            raise self.too_little(binding, tokens)
        plan = self.plan(steps, tokens)
        # After the later steps were asked: a setting of theirs that suits no shape is named rather than a lack of memory.
        self.refuse_memory(plan)
        plan = self.within(plan)
        usage = self.training(plan)
        plan = plan.model_copy(update={"seconds": usage.seconds.value or 0.0})
        loss = self.requested.law.loss_on(self.parameters, plan.tokens, self.unique)
        return Allocation(plan, usage, loss, self.unique, binding)

    def step_tokens(self, tokens: float) -> int:
        return rules.portions(tokens, self.config.context, self.hardware, self.requested.batch)[0] * self.config.context

    def plan(self, steps: int, tokens: float) -> TrainingPlan:
        """So many steps with the portions that suit so many tokens."""
        context = self.config.context
        batch, micro = rules.portions(tokens, context, self.hardware, self.requested.batch)
        precision = self.requested.precision or faster_precision(self.config, micro, context, self.hardware)
        share = batch // self.hardware.count  # of one device
        while micro > 1 and training_memory(self.config, micro, context, precision, self.hardware.device) > self.memory():
            micro = next(part for part in range(micro - 1, 0, -1) if share % part == 0)
        warmup, decay = rules.warmup_and_decay(steps)
        return TrainingPlan(
            model=self.config,
            steps=steps,
            batch=batch,
            micro_batch=micro,
            context=context,
            learning_rate=rules.learning_rate(linear_parameters(self.config), steps * batch * context),
            warmup=warmup,
            decay=decay,
            precision=precision,
            tokens=steps * batch * context,
            seconds=0.0,
        )

    def steps(self, tokens: float) -> tuple[int, str]:
        """As many steps as the tightest limit allows, with portions that suit `tokens`, and that limit's name."""
        few, many = self.plan(rules.FEWEST_STEPS, tokens), self.plan(10 * rules.FEWEST_STEPS, tokens)
        base, more = self.usage(few), self.usage(many)
        enough = self.unique * self.requested.epochs
        deserved = self.requested.law.tokens_for(self.parameters)
        most = {"text": enough / (few.batch * few.context)} if math.isfinite(enough) else {}
        if not self.limits:  # memory alone: train the largest model that fits for as long as its size deserves
            most["law"] = deserved / (few.batch * few.context)
        for name, limit in self.limits.items():
            figure = RESOURCES[name][0]
            first, second = getattr(base, figure).value or 0.0, getattr(more, figure).value or 0.0
            slope = (second - first) / (many.steps - few.steps)
            if slope > 1e-9 * max(first, 1e-9):
                most[name] = few.steps + (limit - first) / slope
            elif first > limit:
                most[name] = 0.0
        if not most:  # the training keeps to figures of its own: whatever is planned, it costs the same
            most["law"] = deserved / (few.batch * few.context)
        binding = min(most, key=lambda name: most[name])
        return math.floor(most[binding]), binding

    def within(self, plan: TrainingPlan) -> TrainingPlan:
        """The plan made shorter until the whole rest of the recipe fits: later steps may not be linear in the tokens."""
        for _ in range(20):
            used = self.usage(plan)
            over = {
                name: (getattr(used, RESOURCES[name][0]).value or 0.0) / limit for name, limit in self.limits.items() if limit > 0
            }
            worst = max(over.values(), default=0.0)
            if worst <= 1.0:
                self.refuse_peak(used)
                return plan
            steps = math.floor(plan.steps * 0.99 / worst)
            if steps < rules.FEWEST_STEPS:
                raise self.too_little(max(over, key=lambda name: over[name]), float(plan.tokens))
            warmup, decay = rules.warmup_and_decay(steps)
            changes = {"steps": steps, "tokens": steps * plan.batch * plan.context, "warmup": warmup, "decay": decay}
            plan = plan.model_copy(update=changes)
        raise self.too_little(max(over, key=lambda name: over[name]), float(plan.tokens))

    def training(self, plan: TrainingPlan) -> Usage:
        return training_usage(
            plan.model, plan.steps, plan.batch, plan.context, plan.precision, self.hardware, micro_batch=plan.micro_batch
        )

    def usage(self, plan: TrainingPlan) -> Usage:
        """Of all steps to come, the training among them."""
        if self.sketch.outlook.later is None:
            return self.training(plan)
        return usage_after(self.sketch.with_(plan=plan, model=plan.model), self.hardware)

    def memory(self) -> float:
        """Bytes that training may hold: the budget's or nine tenths of the device's, less what a process on a CPU needs."""
        return min(self.sketch.outlook.remaining.memory or math.inf, 0.9 * self.hardware.memory) - base_bytes(self.hardware)

    def refuse_memory(self, plan: TrainingPlan) -> None:
        needed = training_memory(plan.model, plan.micro_batch, plan.context, plan.precision, self.hardware.device)
        if needed > self.memory():
            what = "budget.memory" if self.sketch.outlook.remaining.memory is not None else f"the memory of {self.hardware.name}"
            raise BudgetError(
                f"plan: {what} allows {human(max(0.0, self.memory()), 'B')} for training, and a model of width "
                f"{plan.model.width} needs {human(needed, 'B')}: {human(needed - self.memory(), 'B')} short; "
                "raise it, or lower plan.smallest, plan.context or the vocabulary"
            )

    def refuse_peak(self, used: Usage) -> None:
        """The later steps count too: distillation holds two models, and evaluation reads more at one time than training."""
        peak, limit = used.peak_memory.value, self.sketch.outlook.remaining.memory
        if limit is not None and peak is not None and peak > limit:
            raise BudgetError(
                f"plan: budget.memory is {human(limit, 'B')}, and with a model of width {self.config.width} the steps "
                f"after need {human(peak, 'B')}: {human(peak - limit, 'B')} short; raise it, or lower plan.smallest"
            )

    def too_little(self, name: str, tokens: float) -> BudgetError:
        """The error when a limit, or the text, doesn't allow the fewest steps."""
        least = self.plan(rules.FEWEST_STEPS, tokens)
        if name == "text":
            return BudgetError(
                f"plan: {self.unique:,.0f} training tokens, read {self.requested.epochs:g} times, are fewer than "
                f"{least.steps} steps of {least.batch} x {least.context}; add text, or lower plan.context or plan.batch"
            )
        if name == "law":
            return BudgetError(
                f"plan: a model of width {self.config.width} deserves {self.requested.law.tokens_for(self.parameters):,.0f} "
                f"tokens, fewer than {least.steps} steps of {least.batch} x {least.context}; lower plan.batch or plan.context"
            )
        figure, unit = RESOURCES[name]
        needed, limit = getattr(self.usage(least), figure).value or 0.0, self.limits[name]
        left = limit / (1 - self.requested.reserve)
        return BudgetError(
            f"plan: budget.{name} has {human(max(0.0, left), unit)} left, of which plan.reserve keeps "
            f"{self.requested.reserve:.0%}; {least.steps} training steps of a model of width "
            f"{self.config.width} and the steps after it need {human(needed, unit)}: "
            f"{human(needed - limit, unit)} short; raise budget.{name} or take steps out"
        )
