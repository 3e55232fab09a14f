"""What this machine is: its processor or GPU, and how much memory this process may use."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

from shoestring.errors import DeviceError
from shoestring.measure.calibration import stored
from shoestring.measure.hardware import CATALOGUE, Hardware, processor, threads

# NVML's names of the catalogue's devices, the particular ones before the general ones.
_GPU_NAMES = (
    (r"B200", "b200"),
    (r"H200", "h200"),
    (r"H100.*PCIe", "h100-pcie"),
    (r"H100", "h100"),
    (r"A100.*40 ?GB", "a100-40gb"),
    (r"A100", "a100"),
    (r"L40S", "l40s"),
    (r"\bL4\b", "l4"),
    (r"\bA10G?\b", "a10"),
    (r"RTX 5090", "rtx5090"),
    (r"RTX 4090", "rtx4090"),
    (r"RTX 3090", "rtx3090"),
    (r"MI300X", "mi300x"),
    (r"V100", "v100"),
    (r"\bT4\b", "t4"),
)


def detect(device: str | None = None) -> Hardware:
    """What this machine is, with the figures of its stored calibration if that is still valid.

    Args:
        device: "cpu" or "cuda" to leave the other out of account; None or "auto" takes a GPU that PyTorch can use, else the CPU.

    Raises:
        DeviceError: "cuda" is asked for and there is no GPU that PyTorch can use.
    """
    if device not in (None, "auto", "cpu", "cuda"):
        raise DeviceError(f"device: {device!r} is not known; allowed: auto, cpu, cuda")
    hardware = None if device == "cpu" else _gpu()
    if hardware is None and device == "cuda":
        raise DeviceError("device: cuda was asked for, but PyTorch finds no GPU here; leave device out to use the CPU")
    hardware = hardware or processor(processor_name(), threads(), memory_limit())
    reached, date = stored(hardware)
    return hardware.with_(reached=reached, calibrated=date)


def processor_name() -> str:
    """The processor's name and this process's threads, such as `cpu AMD EPYC x2`."""
    name = platform.processor() or platform.machine() or "unknown"
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = found[1].strip() if found else name
    except OSError:
        pass
    return f"cpu {name} x{threads()}"


def memory_limit() -> float:
    """Bytes of memory this process may use: the machine's, cut by a container's limit."""
    limits = []
    try:
        found = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        limits += [float(found[1]) * 1024] if found else []
    except OSError:
        pass
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(float(Path(file).read_text()))
        except (OSError, ValueError):
            continue
    return min(limits, default=CATALOGUE["cpu"].memory)


def _gpu() -> Hardware | None:
    """The GPU that PyTorch uses first, whatever others there are: a run works on one. None without any."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    if version.endswith("+cpu") or not any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return None  # without this, every `shoestring plan` on a laptop would wait for PyTorch's import
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    key = next((key for pattern, key in _GPU_NAMES if re.search(pattern, properties.name)), None)
    known = CATALOGUE[key] if key else _unknown_gpu(properties)
    watts = _power_limit() or known.watts
    return known.with_(memory=float(properties.total_memory), watts=watts)


def _unknown_gpu(properties: Any) -> Hardware:
    """A GPU that isn't in the catalogue: fp32 from its units at 1.5 GHz, tensor units at four times that, all assumed."""
    fp32 = properties.multi_processor_count * 128 * 2 * 1.5e9
    name = re.sub(r"[^a-z0-9]+", "-", properties.name.lower()).strip("-")
    peak = {"fp32": fp32, "bf16": 4 * fp32, "fp16": 4 * fp32}
    return Hardware(name, "cuda", peak, 0.5e12, float(properties.total_memory), 300, 1.0, link=16e9)


def _power_limit() -> float:
    """Watts that the driver lets the first GPU draw, 0 when it doesn't tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetEnforcedPowerLimit(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1000.0
    except Exception:  # NVML raises its own kinds, and none of them matters here
        return 0.0
