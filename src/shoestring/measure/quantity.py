"""A figure that says where it comes from: value, unit, kind, method, and an interval if one is known.

Kinds are never summed silently: adding a measured and a predicted second is a mistake that this type refuses.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Where a figure comes from."""

    MEASURED = "measured"
    """Read from a clock, a counter or an allocator."""
    COUNTED = "counted"
    """Derived exactly from what was done: operations, bytes sent, files on disk."""
    PREDICTED = "predicted"
    """Computed before the fact by a cost model."""
    ESTIMATED = "estimated"
    """Computed after the fact from something that stands for it, such as a table of watts."""
    ASSUMED = "assumed"
    """Taken from a catalogue or a user's word."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value with its unit and its kind. `value` is None when unknown, and then `method` gives the reason."""

    value: float | None
    unit: str
    kind: Kind
    method: str = ""
    interval: tuple[float, float] | None = None

    def __add__(self, other: Quantity) -> Quantity:
        """The sum of two figures of the same unit and kind; unknown plus anything is unknown.

        Raises:
            ValueError: when units or kinds differ; convert or `recast` first, so that it shows.
        """
        if (self.unit, self.kind) != (other.unit, other.kind):
            raise ValueError(f"can't add {other.kind} {other.unit} to {self.kind} {self.unit}")
        if self.value is None or other.value is None:
            return self if self.value is None else other
        method = self.method if self.method == other.method else "; ".join(filter(None, (self.method, other.method)))
        return Quantity(self.value + other.value, self.unit, self.kind, method, _sum_intervals(self, other))

    def scaled(self, factor: float) -> Quantity:
        """The figure times a plain number, its interval with it."""
        if self.value is None:
            return self
        interval = None if self.interval is None else (self.interval[0] * factor, self.interval[1] * factor)
        return Quantity(self.value * factor, self.unit, self.kind, self.method, interval)

    def recast(self, kind: Kind, method: str) -> Quantity:
        """The same value under another kind, with the reason: the one deliberate way to mix kinds."""
        return Quantity(self.value, self.unit, kind, method, self.interval)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for a JSON record; fields that are empty are left out."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None) or key in ("value", "unit")}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Quantity:
        """The figure that `to_json` wrote."""
        interval = record.get("interval")
        return cls(
            record["value"],
            record["unit"],
            Kind(record["kind"]),
            record.get("method", ""),
            None if interval is None else (interval[0], interval[1]),
        )

    def __str__(self) -> str:
        return "unknown" if self.value is None else human(self.value, self.unit)


def measured(value: float, unit: str, method: str = "") -> Quantity:
    """A figure read from a clock, a counter or an allocator."""
    return Quantity(value, unit, Kind.MEASURED, method)


def counted(value: float, unit: str, method: str = "") -> Quantity:
    """A figure that follows exactly from what was done."""
    return Quantity(value, unit, Kind.COUNTED, method)


def predicted(value: float, unit: str, method: str = "", interval: tuple[float, float] | None = None) -> Quantity:
    """A figure from a cost model."""
    return Quantity(value, unit, Kind.PREDICTED, method, interval)


def estimated(value: float, unit: str, method: str, spread: float = 0.4) -> Quantity:
    """A figure from something that stands for it, with a relative spread of at least 40 %."""
    spread = max(spread, 0.4)
    return Quantity(value, unit, Kind.ESTIMATED, method, (value * (1 - spread), value * (1 + spread)))


def unknown(unit: str, reason: str, kind: Kind = Kind.MEASURED) -> Quantity:
    """No figure, and why."""
    return Quantity(None, unit, kind, reason)


_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z")


def human(value: float, unit: str) -> str:
    """A short text for people: `1.5 GiB`, `3.2 GFLOP`, `2 min 05 s`, `$0.0012`."""
    if unit == "s":
        return _duration(value)
    if unit == "USD":
        return _dollars(value)
    if unit == "B":
        step = 0
        while abs(value) >= 1024 and step < len(_BINARY) - 1:
            value, step = value / 1024, step + 1
        return f"{value:.4g} {_BINARY[step]}"
    step = 0
    while abs(value) >= 1000 and step < len(_DECIMAL) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.3g} {_DECIMAL[step]}{unit}".rstrip()


def _dollars(value: float) -> str:
    """Cents from a dollar on; below it four decimals, or as many as two digits of the amount need."""
    if abs(value) >= 1:
        return f"${value:,.2f}"
    digits = 4 if value == 0 or abs(value) >= 1e-3 else min(12, 1 - math.floor(math.log10(abs(value))))
    return f"${value:.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def _sum_intervals(first: Quantity, second: Quantity) -> tuple[float, float] | None:
    if first.interval is None and second.interval is None:
        return None
    low_high = [q.interval or (q.value or 0.0, q.value or 0.0) for q in (first, second)]
    return low_high[0][0] + low_high[1][0], low_high[0][1] + low_high[1][1]
