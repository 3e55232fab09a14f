"""What a piece of work uses: the five resources of the surveys, with wall time and carbon.

Computation (FLOPs), memory (peak bytes), energy (J), money, communication (bytes), arXiv 2401.00625 section 9.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from shoestring.measure.quantity import Kind, Quantity, counted, predicted, unknown

UNITS = {
    "seconds": "s",
    "flops": "FLOP",
    "peak_memory": "B",
    "energy": "J",
    "carbon": "kgCO2e",
    "money": "USD",
    "communication": "B",
}
"""The unit of each resource."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Seven figures for one piece of work. FLOPs count a multiply-add as two; backward counts twice the forward."""

    seconds: Quantity
    flops: Quantity
    peak_memory: Quantity
    energy: Quantity
    carbon: Quantity
    money: Quantity
    communication: Quantity

    def then(self, later: Usage) -> Usage:
        """Both, one after the other: everything adds up but peak memory, of which the larger counts."""
        total = {f.name: getattr(self, f.name) + getattr(later, f.name) for f in fields(self)}
        peaks = [q for q in (self.peak_memory, later.peak_memory) if q.value is not None]
        total["peak_memory"] = max(peaks, key=lambda q: q.value or 0.0) if peaks else self.peak_memory
        return Usage(**total)

    def with_(self, **figures: Quantity) -> Usage:
        """The same with some figures replaced."""
        return replace(self, **figures)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for a JSON record."""
        return {f.name: getattr(self, f.name).to_json() for f in fields(self)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Usage:
        """The usage that `to_json` wrote."""
        return cls(**{name: Quantity.from_json(record[name]) for name in UNITS})


def predicted_usage(
    *,
    seconds: float,
    hardware: Any,
    flops: float | None = None,
    peak_memory: float | None = None,
    communication: float = 0.0,
    method: str = "",
) -> Usage:
    """What work will use, from its time on `hardware` (a `measure.Hardware`): energy, money and carbon follow from it.

    Args:
        seconds: predicted wall time.
        flops: operations, None where they mean little (text processing).
        peak_memory: bytes held at the worst moment.
        communication: bytes between devices.
        method: the cost model, in words.
    """

    def figure(value: float | None, unit: str) -> Quantity:
        if value is None:
            return unknown(unit, "no cost model for this", Kind.PREDICTED)
        return predicted(value, unit, method)

    joules = seconds * hardware.watts
    return Usage(
        seconds=figure(seconds, "s"),
        flops=figure(flops, "FLOP"),
        peak_memory=figure(peak_memory, "B"),
        energy=predicted(joules, "J", f"{hardware.watts:g} W x time", (joules * 0.6, joules * 1.4)),
        carbon=predicted(joules / 3.6e6 * hardware.carbon_per_kwh, "kgCO2e", f"{hardware.carbon_per_kwh:g} kg/kWh"),
        money=predicted(seconds / 3600 * hardware.price_per_hour, "USD", f"${hardware.price_per_hour:g}/h"),
        communication=figure(communication, "B"),
    )


def no_usage(kind: Kind) -> Usage:
    """Nothing used, as the start of a sum of figures of one kind (communication is counted where others are measured)."""
    zero = {name: Quantity(0.0, unit, kind) for name, unit in UNITS.items()}
    if kind is Kind.MEASURED:
        zero |= {name: counted(0.0, UNITS[name]) for name in ("flops", "communication")}
    return Usage(**zero)
