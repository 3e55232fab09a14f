"""What a budget buys, without a recipe: the `plan` command's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from shoestring.architecture.counts import parameters
from shoestring.errors import SettingError
from shoestring.measure import Hardware, Quantity, detect, find, human, predicted
from shoestring.plan.allocate import Allocation, Requested, allocate
from shoestring.plan.explain import Formula, explain, lines
from shoestring.technique import Budget, Outlook, Sketch

VOCABULARY = {"cpu": 4096, "cuda": 32_768}
"""Entries of the tokenizer, when nothing is known: what suits a model of a few, and of hundreds of millions of parameters."""
LARGE = 500e6
"""Parameters from which a GPU's model is planned with sequences of `LONG` tokens instead of 1024."""
LONG = 2048
GRADIENT_BYTES = 4.0
"""Of a parameter's gradient, which stays in float32."""
_UNITS = {"time": "s", "memory": "B", "energy": "J", "money": "USD"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a budget buys on a device: the chosen training run, what it will use, and how each figure was found."""

    hardware: Hardware
    budget: Budget
    allocation: Allocation
    formulas: tuple[Formula, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for a JSON record."""
        return {
            "device": self.hardware.name,
            "count": self.hardware.count,
            "calibrated": self.hardware.calibrated,
            "budget": {field.name: getattr(self.budget, field.name) for field in fields(self.budget)},
            "parameters": parameters(self.allocation.plan.model),
            "plan": self.allocation.plan.model_dump(mode="json", exclude={"formulas"}),
            "usage": self.allocation.usage.to_json(),
            "formulas": list(self.formulas),
        }

    def text(self) -> str:
        """What a person reads."""
        plan, usage, count = self.allocation.plan, self.allocation.usage, self.hardware.count
        given = {name: getattr(self.budget, name) for name in _UNITS}
        limits = ", ".join(f"{name} {human(value, _UNITS[name])}" for name, value in given.items() if value is not None)
        device = self.hardware.name if count == 1 else f"{count} x {self.hardware.name}"
        basis = f"calibrated {self.hardware.calibrated}" if self.hardware.calibrated else "not calibrated: by the data sheet"
        buys = f"{human(parameters(plan.model), '')} parameters trained on {human(plan.tokens, '')} tokens"
        uses = f"{_hours(usage.seconds)}, {_kwh(usage.energy)}, {_value(usage.money)}, {_carbon(usage.carbon)}"
        memory = f"{_value(usage.peak_memory)} of memory" + (" on each device" if count > 1 else "")
        return "\n".join([f"{limits} on {device} ({basis}) buys {buys}:", *lines(self.formulas), f"uses {uses}, {memory}"])


def estimate(
    budget: Budget, device: str = "auto", count: int = 1, *, tokens: float | None = None, requested: Requested | None = None
) -> Estimate:
    """The best training run that a budget buys. Pure arithmetic: no tensor is allocated.

    Args:
        budget: limits in seconds, bytes, joules, USD.
        device: a name of the catalogue, "auto" for this machine, "cpu" or "cuda" for that part of it.
        count: devices of this kind used together, each with a copy of the weights (data-parallel).
        tokens: of text that there are; None: no end of it.
        requested: what is fixed beforehand; sequences of 256 on a CPU, 1024 on a GPU, 2048 from 500M parameters when not given.

    Raises:
        SettingError: no limit, no such device, or several processors. BudgetError: it buys nothing; says what is short.
    """
    hardware = _hardware(device, count)
    requested = requested or Requested()
    sketch = Sketch(vocabulary=VOCABULARY[hardware.device], tokens=tokens, outlook=Outlook(budget))
    chosen = allocate(sketch, hardware, requested)
    if requested.context is None and hardware.device == "cuda" and parameters(chosen.plan.model) >= LARGE:
        requested = replace(requested, context=LONG)
        chosen = allocate(sketch, hardware, requested)
    formulas = explain(chosen, hardware, requested)
    if hardware.count > 1:
        sent = communication(chosen, hardware)
        chosen = replace(chosen, usage=chosen.usage.with_(communication=sent))
        formulas = (*formulas, _exchange(sent, chosen, hardware))
    return Estimate(hardware, budget, chosen, formulas)


def communication(allocation: Allocation, hardware: Hardware) -> Quantity:
    """Bytes that each device sends: a ring all-reduce of the gradients, 2 (n - 1) / n of their bytes, once a step."""
    n, P = hardware.count, parameters(allocation.plan.model)
    each = 2 * (n - 1) / n * GRADIENT_BYTES * P
    how = f"all-reduce of the gradients: 2 (n-1)/n x {GRADIENT_BYTES:g} bytes a parameter a step, sent by each device"
    return predicted(each * allocation.plan.steps, "B", how)


def _exchange(sent: Quantity, allocation: Allocation, hardware: Hardware) -> Formula:
    """The line that explains what devices send to each other."""
    formula = sent.method
    if hardware.link and sent.value:
        share = sent.value / hardware.link / allocation.plan.seconds
        formula += f"; {share:.2%} of the time at {human(hardware.link, 'B')}/s, behind the backward pass and so not added"
    return {
        "name": "communication",
        "value": sent.value,
        "unit": "B",
        "formula": formula,
        "source": "ring all-reduce, arXiv 1802.05799",
    }


def _hardware(device: str, count: int) -> Hardware:
    """The devices to plan for."""
    if count < 1:
        raise SettingError(f"plan.count: must be at least 1, got {count}")
    hardware = detect(device) if device in ("auto", "cpu", "cuda") else find(device)
    if count > 1 and hardware.device == "cpu":
        raise SettingError(f"plan.count: {count} processors can't train together here; name a GPU with --device, or leave it out")
    return hardware.with_(count=count)


def _value(figure: Quantity) -> str:
    return "unknown" if figure.value is None else human(figure.value, figure.unit)


def _hours(figure: Quantity) -> str:
    return "unknown time" if figure.value is None else f"{human(figure.value, 's')} ({figure.value / 3600:.3g} h)"


def _kwh(figure: Quantity) -> str:
    """Energy as people pay for it, with the interval that assumed watts have."""
    if figure.value is None:
        return "unknown energy"
    low, high = figure.interval or (figure.value, figure.value)
    return f"{figure.value / 3.6e6:.3g} kWh ({low / 3.6e6:.3g} to {high / 3.6e6:.3g})"


def _carbon(figure: Quantity) -> str:
    return "unknown CO2e" if figure.value is None else f"{figure.value:.3g} kg CO2e"
