"""What work runs on: a catalogue of devices, what this machine is, and what it really reached when it was calibrated."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from shoestring.errors import SettingError, nearest

CARBON_PER_KWH = 0.445
"""kg CO2e per kWh: the world's average of 2024 (IEA, Electricity 2025). Assumed."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device, by its vendor's figures and by its own measured ones.

    Attributes:
        name: the catalogue's key.
        device: PyTorch's device type, "cpu" or "cuda".
        count: devices of this kind used together.
        peak: vendor's dense FLOP/s by dtype ("fp32", "bf16", "fp8").
        bandwidth: bytes/s of device memory.
        memory: bytes of device memory.
        watts: drawn under load, one device. Energy from it is estimated.
        price_per_hour: US dollars, one device. Assumed.
        link: bytes/s between devices, one direction; 0 when there is one device.
        carbon_per_kwh: kg CO2e.
        reached: measured figures by name ("matmul.bf16": FLOP/s, "copy": bytes/s, "train....": see each room's cost.py).
        calibrated: when and with what `reached` was measured; empty when it was not.
    """

    name: str
    device: str
    peak: dict[str, float]
    bandwidth: float
    memory: float
    watts: float
    price_per_hour: float
    count: int = 1
    link: float = 0.0
    carbon_per_kwh: float = CARBON_PER_KWH
    reached: dict[str, float] = field(default_factory=dict)
    calibrated: str = ""

    def rate(self, dtype: str, share: float = 0.5) -> float:
        """FLOP/s of large matrix products in a dtype: measured when calibrated, else `share` of the vendor's peak."""
        return self.reached.get(f"matmul.{dtype}", self.peak.get(dtype, self.peak["fp32"]) * share)

    def figure(self, name: str, otherwise: float) -> float:
        """A calibrated figure, or the given assumption."""
        return self.reached.get(name, otherwise)

    def with_(self, **changes: object) -> Hardware:
        """The same with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]


def _gpu(
    name: str, bf16: float, fp8: float, bandwidth: float, memory: float, watts: float, price: float, link: float
) -> Hardware:
    peak = {"fp32": bf16 / 15, "bf16": bf16, "fp16": bf16, "fp8": fp8}
    return Hardware(name, "cuda", peak, bandwidth, memory, watts, price, link=link)


CATALOGUE: dict[str, Hardware] = {
    hardware.name: hardware
    for hardware in (
        # Dense rates, bandwidth, memory, power: vendors data sheets; prices: typical on-demand ones of 2026, assumed.
        _gpu("h200", 989.5e12, 1979e12, 4.8e12, 141e9, 700, 3.5, 450e9),
        _gpu("h100", 989.5e12, 1979e12, 3.35e12, 80e9, 700, 2.5, 450e9),
        _gpu("a100", 312e12, 312e12, 2.04e12, 80e9, 400, 1.5, 300e9),
        _gpu("l4", 121e12, 242e12, 0.3e12, 24e9, 72, 0.7, 32e9),
        _gpu("rtx4090", 165e12, 330e12, 1.008e12, 24e9, 450, 0.4, 32e9),
        Hardware("cpu", "cpu", {"fp32": 100e9, "bf16": 100e9}, 17e9, 16e9, 30, 0.08),
    )
}
"""Devices to plan for, by name."""


def find(name: str) -> Hardware:
    """A device of the catalogue.

    Raises:
        SettingError: no such name; the nearest one is given.
    """
    if name.lower() not in CATALOGUE:
        raise SettingError(f"device {name!r}: not in the catalogue; {nearest(name.lower(), CATALOGUE)}")
    return CATALOGUE[name.lower()]


def threads() -> int:
    """Processor threads this process may use: its affinity, cut by a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return allowed
