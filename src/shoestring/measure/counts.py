"""From a design to seconds: how much work of each kind there is, times what this machine takes for one unit of it.

    seconds = sum over terms of counts[term] x unit(term)

A term is named by its room, such as `train.fp32.matrices` or `infer.moved`. A room's `cost.py` counts, and has a table `ASSUMED`
of seconds that a unit is assumed to take; a calibration's figure of the same name takes its place. A new term is one name in
that table. Work that overlaps, as operations and the bytes they wait for do, counts where it takes longer: `max` of two counts
by their `seconds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shoestring.measure.hardware import Hardware
from shoestring.measure.usage import Usage, predicted_usage

Counts = Mapping[str, float]
"""Work by term: operations, bytes, elements, layers, starts."""
Units = Mapping[str, float | Callable[[Hardware], float]]
"""Seconds that one unit of a term is assumed to take, of its own or by a device's data sheet."""

ASSUMED_SPREAD = 1.0
"""Relative spread of an assumed unit: a factor of two either way."""
SPREADS = 2.5
"""Mean relative errors of a fit that 95 % of what it predicts stays within (2 / the mean of |x| under a normal distribution)."""


def unit(term: str, units: Units, hardware: Hardware) -> float:
    """Seconds for one unit of a term: measured where the machine is calibrated, else assumed."""
    if term in hardware.reached:
        return hardware.reached[term]
    assumed = units[term]
    return assumed(hardware) if callable(assumed) else assumed


def seconds(counts: Counts, units: Units, hardware: Hardware) -> float:
    """What the work takes, each term after the other."""
    return sum(amount * unit(term, units, hardware) for term, amount in counts.items() if amount)


def times(counts: Counts, factor: float) -> dict[str, float]:
    """The work done `factor` times."""
    return {term: amount * factor for term, amount in counts.items()}


def both(*parts: Counts) -> dict[str, float]:
    """The work of all parts."""
    return {term: sum(part.get(term, 0.0) for part in parts) for part in parts for term in part}


def products(dtype: str, share: float = 1.0, on_gpu: float | None = None) -> Callable[[Hardware], float]:
    """The unit of an operation that reaches a share of the machine's rate of large matrix products."""
    return lambda hardware: 1 / (hardware.rate(dtype) * (on_gpu if on_gpu and hardware.device != "cpu" else share))


def usage(
    counts: Counts,
    kept: float | None,
    hardware: Hardware,
    units: Units,
    *,
    flops: float | None = 0.0,
    communication: float = 0.0,
    method: str = "",
) -> Usage:
    """What work will use.

    Args:
        kept: bytes that it holds at the worst moment, on one device; the process's own are added here (`predicted_usage`).
        units: of the terms, the room's table.
        flops: operations, None where nothing is known of them.
        communication: bytes between devices, all together.
        method: the cost model, in words.
    """
    taken = {term: amount * unit(term, units, hardware) for term, amount in counts.items() if amount}
    spread = sum(value * _spread(term, hardware) for term, value in taken.items()) / (sum(taken.values()) or 1.0)
    return predicted_usage(
        seconds=sum(taken.values()),
        spread=spread,
        hardware=hardware,
        flops=flops,
        peak_memory=kept,
        communication=communication,
        method=method,
    )


def _spread(term: str, hardware: Hardware) -> float:
    """Relative spread of a unit: what its fit missed, as `train.fp32.error` says of `train.fp32.matrices`."""
    error = hardware.reached.get(f"{term.rpartition('.')[0]}.error") if term in hardware.reached else None
    return ASSUMED_SPREAD if error is None else SPREADS * error
