"""Peak memory of a block of work, with blocks inside blocks.

A peak register (the kernel's for the process, PyTorch's for a GPU) can be read and reset. When a block begins or ends, the
register's reading belongs to every block that is open: it is folded into each, and the register is reset.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h


def resident_bytes(trimmed: bool = False) -> float:
    """Bytes of this process in memory now.

    Args:
        trimmed: hand memory that was freed back to the system first (glibc keeps it): what is left is really held.
    """
    if trimmed:
        _glibc("malloc_trim", 0)
    return _status("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def resident_peak() -> float:
    """The most bytes of this process in memory since the last reset (since its start where it can't be reset)."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024.0 if sys.platform == "linux" else 1.0)


def reset_resident_peak() -> bool:
    """Forget the peak of before; False where the kernel doesn't allow it."""
    try:
        CLEAR.write_text("5")
        return True
    except OSError:
        return False


def device_peak(torch: Any, count: int) -> float:
    """The most bytes that PyTorch held on any of the first `count` GPUs since the last reset."""
    return float(max(torch.cuda.max_memory_allocated(index) for index in range(min(count, torch.cuda.device_count()))))


class Peaks:
    """The open blocks' peaks, by block number. One instance serves the process."""

    def __init__(self) -> None:
        self.host: dict[int, float] = {}
        self.device: dict[int, float] = {}
        self.exact = True
        self._next = 0

    def open(self, torch: Any | None, count: int) -> int:
        """Begin a block; returns its number."""
        self._fold(torch, count)
        block, self._next = self._next, self._next + 1
        self.host[block] = resident_bytes()
        self.device[block] = 0.0
        return block

    def read(self, block: int, torch: Any | None, count: int) -> tuple[float, float]:
        """Peak bytes of a block so far: of the process, and on the device."""
        self._fold(torch, count)
        return self.host[block], self.device[block]

    def close(self, block: int, torch: Any | None, count: int) -> tuple[float, float]:
        """End a block; its peaks."""
        found = self.read(block, torch, count)
        del self.host[block], self.device[block]
        return found

    def _fold(self, torch: Any | None, count: int) -> None:
        host = resident_peak()
        self.exact = reset_resident_peak()
        for block in self.host:
            self.host[block] = max(self.host[block], host)
        if torch is None:
            return
        device = device_peak(torch, count)
        for index in range(min(count, torch.cuda.device_count())):
            torch.cuda.reset_peak_memory_stats(index)
        for block in self.device:
            self.device[block] = max(self.device[block], device)


PEAKS = Peaks()


def _status(field: str) -> float:
    """A field of the process's status in bytes, 0 where there is none."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return float(line.split()[1]) * 1024.0
    except (OSError, ValueError, IndexError):
        pass
    return 0.0


@contextmanager
def held_heap() -> Iterator[None]:
    """Keep freed memory in the process while the block runs, and hand it back afterwards; nothing where there is no glibc.

    A training step frees its activations and asks for as many again. glibc hands them back to the kernel in between, and
    taking them again page by page cost a tenth to a half of a step here (9,000 to 33,000 page faults a step, none with this).
    Blocks above 32 MiB always go back: glibc allows no higher threshold.
    """
    _glibc("mallopt", _TRIM_THRESHOLD, 2**31 - 1)
    _glibc("mallopt", _MMAP_THRESHOLD, 32 << 20)
    try:
        yield
    finally:
        _glibc("mallopt", _TRIM_THRESHOLD, 128 << 10)
        _glibc("mallopt", _MMAP_THRESHOLD, 128 << 10)
        _glibc("malloc_trim", 0)


def _glibc(function: str, *values: int) -> None:
    """Call one of glibc's own functions; nothing where there is no glibc."""
    try:
        getattr(ctypes.CDLL(None), function)(*values)
    except (OSError, AttributeError, TypeError):  # another libc; Windows, where there is no library without a name
        return
