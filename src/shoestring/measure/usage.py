"""What a piece of work uses: the five resources of the surveys, with wall time and carbon.

Computation (FLOPs), memory (peak bytes), energy (J), money, communication (bytes), arXiv 2401.00625 section 9.
"""

from __future__ import annotations

from collections.abc import Iterable
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

PROCESS_BYTES = 0.35e9
"""Bytes of a process that has loaded Python, PyTorch and Shoestring and done nothing yet; calibration measures it."""


def base_bytes(hardware: Any) -> float:
    """Bytes that the process holds before any work, and that count in a peak on `hardware` (a `measure.Hardware`): 0 on a GPU."""
    return hardware.figure("process.bytes", PROCESS_BYTES) if hardware.device == "cpu" else 0.0


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
    spread: float | None = None,
) -> Usage:
    """What work will use, from its time on `hardware` (a `measure.Hardware`): energy, money and carbon follow from it.

    Args:
        seconds: predicted wall time.
        flops: operations, None where they mean little (text processing).
        peak_memory: bytes that the work itself holds at the worst moment, on one device. On a CPU the meter sees the whole
            process, so the process's own base (`base_bytes`) is added here, and nowhere else.
        communication: bytes between devices.
        method: the cost model, in words.
        spread: relative, of the seconds: they lie between seconds / (1 + spread) and seconds x (1 + spread).
    """

    def figure(value: float | None, unit: str) -> Quantity:
        if value is None:
            return unknown(unit, "no cost model for this", Kind.PREDICTED)
        return predicted(value, unit, method)

    if peak_memory is not None:
        peak_memory += base_bytes(hardware)
    watts, price = hardware.watts * hardware.count, hardware.price_per_hour * hardware.count
    joules = seconds * watts
    return Usage(
        seconds=predicted(seconds, "s", method, None if spread is None else (seconds / (1 + spread), seconds * (1 + spread))),
        flops=figure(flops, "FLOP"),
        peak_memory=figure(peak_memory, "B"),
        energy=predicted(joules, "J", f"{watts:g} W x time", (joules * 0.6, joules * 1.4)),
        carbon=predicted(joules / 3.6e6 * hardware.carbon_per_kwh, "kgCO2e", f"{hardware.carbon_per_kwh:g} kg/kWh"),
        money=predicted(seconds / 3600 * price, "USD", f"${price:g}/h"),
        communication=figure(communication, "B"),
    )


def no_usage(kind: Kind) -> Usage:
    """Nothing used, as the start of a sum of figures of one kind (communication is counted where others are measured)."""
    zero = {name: Quantity(0.0, unit, kind) for name, unit in UNITS.items()}
    if kind is Kind.MEASURED:
        zero |= {name: counted(0.0, UNITS[name]) for name in ("flops", "communication")}
    return Usage(**zero)


def total(usages: Iterable[Usage]) -> Usage:
    """What several pieces of work used one after the other, whatever the kinds of their figures.

    Where kinds differ the sum takes the weakest and its method says of what it is made; an unknown part is left out and
    named. Peak memory is the largest.
    """
    parts = list(usages)
    return Usage(**{name: _total([getattr(part, name) for part in parts], name, unit) for name, unit in UNITS.items()})


_WEAKEST_FIRST = (Kind.ASSUMED, Kind.ESTIMATED, Kind.PREDICTED, Kind.MEASURED, Kind.COUNTED)


def _total(parts: list[Quantity], name: str, unit: str) -> Quantity:
    known = [part for part in parts if part.value is not None]
    if not known:
        return unknown(unit, parts[0].method if parts else "nothing was done", parts[0].kind if parts else Kind.COUNTED)
    missing = f"{len(parts) - len(known)} of {len(parts)} parts unknown" if len(known) < len(parts) else ""
    if name == "peak_memory":
        largest = max(known, key=lambda part: part.value or 0.0)
        return replace(largest, method="; ".join(filter(None, (largest.method, missing))))
    kinds = [kind for kind in _WEAKEST_FIRST if any(part.kind is kind for part in known)]
    mixed = " + ".join(f"{sum(part.kind is kind for part in known)} {kind}" for kind in reversed(kinds)) if len(kinds) > 1 else ""
    methods = "" if mixed else "; ".join(dict.fromkeys(filter(None, (part.method for part in known))))
    summed = known[0].recast(kinds[0], "")
    for part in known[1:]:
        summed = summed + part.recast(kinds[0], "")
    return replace(summed, method="; ".join(filter(None, (methods, mixed, missing))))
