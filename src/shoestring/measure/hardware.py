"""What work runs on: a catalogue of devices, what this machine is, and what it really reached when it was calibrated."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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

    def with_(self, **changes: Any) -> Hardware:
        """The same with some fields replaced."""
        return replace(self, **changes)


def _gpu(
    name: str, tensor: float, fp8: float, fp32: float, bandwidth: float, memory: float, watts: float, price: float, link: float
) -> Hardware:
    """A GPU of the catalogue: TFLOP/s, TB/s, GB, W, USD per hour, GB/s; `fp8` 0 where there are no such units."""
    peak = {"fp32": fp32 * 1e12, "bf16": tensor * 1e12, "fp16": tensor * 1e12}
    if fp8:
        peak["fp8"] = fp8 * 1e12
    return Hardware(name, "cuda", peak, bandwidth * 1e12, memory * 1e9, watts, price, link=link * 1e9)


def processor(name: str, count: int, memory: float) -> Hardware:
    """A CPU of so many threads. Everything about it is assumed until it is calibrated: 50 GFLOP/s, 10 W and $0.04 an hour
    a thread (what cloud vendors ask for a vCPU), 17 GB/s for all.
    """
    peak = {"fp32": 50e9 * count, "bf16": 50e9 * count}
    return Hardware(name, "cpu", peak, 17e9, memory, 10.0 * count, 0.04 * count)


CATALOGUE: dict[str, Hardware] = {
    hardware.name: hardware
    for hardware in (
        # Dense rates without sparsity (16-bit products summed in fp32; fp32 of the plain units, not TF32), bandwidth, memory,
        # board power and one direction of the link (NVLink, or PCIe where there is none), from the vendors' data sheets:
        # NVIDIA HGX B200, H200, H100, A100, L40S, L4, A10, T4, V100; architecture papers of Ampere GA102, Ada and Blackwell
        # RTX; AMD MI300X. Prices: typical on-demand ones of 2026, assumed.
        #    name         16-bit  fp8   fp32   TB/s   GB   W     USD   GB/s
        _gpu("b200", 2250, 4500, 75, 8.0, 180, 1000, 5.5, 900),
        _gpu("h200", 989.5, 1979, 67, 4.8, 141, 700, 3.5, 450),
        _gpu("h100", 989.5, 1979, 67, 3.35, 80, 700, 2.5, 450),
        _gpu("h100-pcie", 756, 1513, 51, 2.0, 80, 350, 2.2, 64),
        _gpu("a100", 312, 0, 19.5, 2.039, 80, 400, 1.5, 300),
        _gpu("a100-40gb", 312, 0, 19.5, 1.555, 40, 400, 1.2, 300),
        _gpu("l40s", 362, 733, 91.6, 0.864, 48, 350, 1.0, 32),
        _gpu("l4", 121, 242, 30.3, 0.3, 24, 72, 0.7, 32),
        _gpu("a10", 125, 0, 31.2, 0.6, 24, 150, 0.6, 32),
        _gpu("rtx5090", 209.5, 419, 104.8, 1.792, 32, 575, 0.6, 64),
        _gpu("rtx4090", 165.2, 330.3, 82.6, 1.008, 24, 450, 0.4, 32),
        _gpu("rtx3090", 71, 0, 35.6, 0.936, 24, 350, 0.25, 32),
        _gpu("mi300x", 1307, 2615, 163.4, 5.3, 192, 750, 2.5, 64),
        # No bfloat16 units: only fp16 and fp32.
        _gpu("v100", 125, 0, 15.7, 0.9, 32, 300, 0.8, 150),
        _gpu("t4", 65, 0, 8.1, 0.32, 16, 70, 0.4, 16),
        processor("cpu", 2, 16e9),
    )
}
"""Devices to plan for, by name."""
for _name in ("v100", "t4"):
    del CATALOGUE[_name].peak["bf16"]


def find(name: str) -> Hardware:
    """A device of the catalogue: `h200`, also written `H200`, `NVIDIA H200` or `RTX 4090`.

    Raises:
        SettingError: no such name; the nearest one is given.
    """
    plain = name.lower().replace("nvidia", "").replace("geforce", "").strip(" -_")
    for key, hardware in CATALOGUE.items():
        if re.sub(r"[ _-]", "", plain) == re.sub(r"[ _-]", "", key):
            return hardware
    raise SettingError(f"device {name!r}: not in the catalogue; {nearest(plain, CATALOGUE)}")


def threads() -> int:
    """Processor threads this process may use: its affinity, cut by a container's quota and by OMP_NUM_THREADS."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdigit() and int(requested) > 0:
        allowed = min(allowed, int(requested))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return allowed


def free_threads(seconds: float = 0.4) -> int:
    """As many threads as this process may use, or one when other work keeps the cores busy.

    Threads that wait for each other on busy cores are many times slower than one alone (measured: 25 times). The cores are
    watched for so many seconds; where the system does not tell, all threads are taken to be free.
    """
    allowed = threads()
    if allowed == 1 or "OMP_NUM_THREADS" in os.environ:
        return allowed
    return 1 if busy_cores(seconds) > allowed / 4 else allowed


def busy_cores(seconds: float = 0.4) -> float:
    """How many cores other work keeps busy, watched for so many seconds; 0 where the system does not tell."""
    try:
        idle, total = _ticks()
        time.sleep(seconds)
        idle, total = _ticks()[0] - idle, _ticks()[1] - total
    except (OSError, ValueError):
        return 0.0
    return (1 - idle / max(total, 1)) * (os.cpu_count() or 1)


def _ticks() -> tuple[int, int]:
    """Clock ticks that the processors have been idle, and all, since the start (Linux)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)
