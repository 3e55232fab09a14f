"""Where joules come from: a GPU's own counter (NVML), the processor's (RAPL), or nothing but a table of watts.

Only the two counters give measured energy. NVML counts the GPU's board, RAPL the processor packages and their memory;
neither counts the rest of the machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Protocol

RAPL = Path("/sys/class/powercap")


class Sensor(Protocol):
    """A counter of energy."""

    name: str

    def joules(self) -> float:
        """A count that only grows; the difference of two readings is energy used."""


class NvmlSensor:
    """The energy counters of the GPUs that PyTorch sees, added up."""

    def __init__(self, count: int) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        self._handles = [_handle(pynvml, index) for index in range(count)]
        self.name = "NVML energy counter of " + ("the GPU" if count == 1 else f"{count} GPUs") + ", host left out"
        self.joules()

    def joules(self) -> float:
        """Joules since the driver was loaded."""
        return sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self._handles) / 1000.0


class RaplSensor:
    """The energy counters of the processor packages and their memory, through Linux's powercap files."""

    name = "RAPL counters of processor and memory"

    def __init__(self, root: Path = RAPL) -> None:
        self._counters = []
        for zone in sorted(root.glob("intel-rapl:*")):
            label = (zone / "name").read_text().strip()
            if label.startswith("package") or label == "dram":
                self._counters.append((zone / "energy_uj", float((zone / "max_energy_range_uj").read_text())))
        if not self._counters:
            raise OSError("no RAPL zones")
        self._last = [float(file.read_text()) for file, _ in self._counters]
        self._total = 0.0
        self._read_at = time.monotonic()

    def joules(self) -> float:
        """Joules since this sensor was made. A counter that went round once since the last reading is put right."""
        for index, (file, span) in enumerate(self._counters):
            now = float(file.read_text())
            self._total += (now - self._last[index]) % (span + 1)
            self._last[index] = now
        self._read_at = time.monotonic()
        return self._total / 1e6

    def tick(self) -> None:
        """Read now and then: at 100 W a package's counter goes round in less than an hour."""
        if time.monotonic() - self._read_at > 60:
            self.joules()


_found: dict[tuple[str, int], Sensor | None] = {}


def sensor(device: str, count: int = 1) -> Sensor | None:
    """The counter for a device ("cuda" or "cpu"), or None where none can be read."""
    key = (device, count)
    if key not in _found:
        try:
            _found[key] = NvmlSensor(count) if device == "cuda" else RaplSensor()
        except Exception:  # NVML raises its own kinds for a missing driver, a virtual GPU, a card without the counter
            _found[key] = None
    return _found[key]


def _handle(pynvml: Any, index: int) -> Any:
    """NVML's handle of PyTorch's GPU `index`: by UUID, since the two number differently when some are hidden."""
    import torch

    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    if uuid is not None:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return pynvml.nvmlDeviceGetHandleByIndex(int(visible[index]) if visible and visible[index].isdigit() else index)
