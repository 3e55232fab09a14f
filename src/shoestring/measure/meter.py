"""The meter: a context manager that measures what the block inside it used. Meters nest.

The device is synchronised before a clock is read, so that work in flight is counted where it belongs.
"""

from __future__ import annotations

import sys
import time
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from shoestring.measure.energy import RaplSensor, sensor
from shoestring.measure.hardware import Hardware
from shoestring.measure.memory import PEAKS
from shoestring.measure.quantity import Kind, Quantity, counted, estimated, measured, unknown
from shoestring.measure.usage import Usage

_running: ContextVar[Meter | None] = ContextVar("running", default=None)


def running() -> Meter | None:
    """The innermost meter whose block this code runs in."""
    return _running.get()


class Meter:
    """Measures wall time, peak memory and energy; counts the FLOPs and bytes that the work reports.

    A meter started inside another's block is its child: what is counted in it counts in both, and its peak of memory is
    also its parent's. Energy is measured where a counter can be read (NVML, RAPL), else estimated from watts x time.

    >>> with Meter(hardware) as meter:
    ...     train()
    ...     meter.count(flops=1e12)
    >>> meter.usage.seconds
    """

    def __init__(self, hardware: Hardware, parent: Meter | None = None) -> None:
        self.hardware = hardware
        self.parent = parent
        self.flops = 0.0
        self.communication = 0.0
        self._elsewhere = 0.0
        self._open = False
        self._seconds = 0.0
        self._block = -1
        self._token: Token[Meter | None] | None = None
        self._peaks: tuple[float, float] | None = None
        self._joules: float | None = None

    def child(self) -> Meter:
        """A meter for a part of this one's block; for work in another thread, which the nesting doesn't see by itself."""
        return Meter(self.hardware, parent=self)

    def count(self, flops: float = 0.0, communication: float = 0.0, peak: float = 0.0) -> None:
        """Tell the meter, and those around it, of operations, bytes between devices, and another process's peak of memory."""
        self._elsewhere = max(self._elsewhere, peak)
        self.flops += flops
        self.communication += communication
        if isinstance(self._sensor, RaplSensor):
            self._sensor.tick()
        if self.parent is not None:
            self.parent.count(flops, communication, peak)

    def __enter__(self) -> Meter:
        if self.parent is None:
            self.parent = _running.get()
        self._token = _running.set(self)
        self._sensor = sensor(self.hardware.device, self.hardware.count)
        self._block = PEAKS.open(self._torch(), self.hardware.count)
        self._open = True
        self._synchronise()
        self._joules_before = self._sensor.joules() if self._sensor else 0.0
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A failed kernel fails again at the next synchronisation: the first error must stay the one that is seen.
        if error is None:
            self._synchronise()
        self._seconds = time.perf_counter() - self._start
        self._joules = self._sensor.joules() - self._joules_before if self._sensor else None
        self._peaks = PEAKS.close(self._block, self._torch(), self.hardware.count)
        self._open = False
        if self._token is not None:
            _running.reset(self._token)

    @property
    def seconds(self) -> float:
        """Wall time of the block, up to now while it runs."""
        return time.perf_counter() - self._start if self._open else self._seconds

    @property
    def usage(self) -> Usage:
        """What the block used; while it still runs, what it has used up to now (without waiting for the device).

        Raises:
            RuntimeError: the block has not begun.
        """
        if self._block < 0:
            raise RuntimeError("this meter has not run; use it as `with Meter(hardware) as meter:`")
        energy = self._energy()
        hours, price = self.seconds / 3600, self.hardware.price_per_hour * self.hardware.count
        carbon = unknown("kgCO2e", "energy is unknown", Kind.ESTIMATED)
        if energy.value is not None:
            grid = f"{self.hardware.carbon_per_kwh:g} kg/kWh (assumed) x {energy.kind} energy"
            carbon = estimated(energy.value / 3.6e6 * self.hardware.carbon_per_kwh, "kgCO2e", grid)
        return Usage(
            seconds=measured(self.seconds, "s", "wall clock"),
            flops=counted(self.flops, "FLOP", "from the architecture")
            if self.flops
            else unknown("FLOP", "not counted", Kind.COUNTED),
            peak_memory=self._peak_memory(),
            energy=energy,
            carbon=carbon,
            money=Quantity(hours * price, "USD", Kind.ESTIMATED, f"${price:g}/h (assumed) x measured time"),
            communication=counted(self.communication, "B", "counted by the work"),
        )

    _sensor: Any = None

    def _torch(self) -> Any | None:
        """PyTorch, when the device is a GPU that this process already uses; the meter itself never wakes one."""
        torch = sys.modules.get("torch") if self.hardware.device == "cuda" else None
        return torch if torch is not None and torch.cuda.is_initialized() else None

    def _synchronise(self) -> None:
        torch = self._torch()
        if torch is not None:
            for index in range(min(self.hardware.count, torch.cuda.device_count())):
                torch.cuda.synchronize(index)

    def _energy(self) -> Quantity:
        if self._sensor is not None:
            joules = self._joules if self._joules is not None else self._sensor.joules() - self._joules_before
            return measured(joules, "J", self._sensor.name)
        watts = self.hardware.watts * self.hardware.count
        if watts <= 0:
            return unknown("J", "no energy counter, and no watts are known for this device", Kind.ESTIMATED)
        return estimated(watts * self.seconds, "J", f"{watts:g} W (assumed) x measured time; no energy counter can be read")

    def _peak_memory(self) -> Quantity:
        if self._elsewhere > 0:
            return measured(self._elsewhere, "B", "the fullest of several processes")
        host, device = self._peaks or PEAKS.read(self._block, self._torch(), self.hardware.count)
        if device > 0:
            return measured(device, "B", "PyTorch's allocator, the fullest device")
        if host <= 0:
            return unknown("B", "this system doesn't tell a process's memory")
        whose = "the whole process" if self.hardware.device == "cpu" else "the whole process on the host; the device held nothing"
        since = "" if PEAKS.exact else ", since its start: the kernel doesn't let the peak be reset"
        return measured(host, "B", f"resident memory of {whose}{since}")
