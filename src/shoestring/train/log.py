"""What the watcher sees of a training run: records for the log and one line of status.

MFU is the operations that the architecture needs (`model.cost`: a multiply-add counts two, backward twice the forward,
attention its causal half, recomputation nothing) over the vendor's dense peak of the precision in use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from shoestring.files import to_json
from shoestring.measure import Hardware, Meter, Usage, human
from shoestring.train.settings import Training


def peak(hardware: Hardware | None, settings: Training) -> float | None:
    """FLOP/s that MFU is measured against, all devices together: a GPU vendor's figure for the precision; for a CPU, of which
    no figure is given, what its large matrix products reached when it was calibrated.
    """
    if hardware is None:
        return None
    if hardware.device == "cpu":
        measured = hardware.reached.get(f"matmul.{settings.precision}")
        return None if measured is None else measured * hardware.count
    rate = hardware.peak.get(settings.precision)
    return None if rate is None else rate * hardware.count


CLOCKED = ("seconds", "tokens_per_second", "mfu")
"""What of a record depends on the clock."""


def record(
    step: int,
    tokens: int,
    means: dict[str, float],
    learning_rate: float,
    norm: float,
    seconds: float,
    speed: float,
    mfu: float | None,
) -> dict[str, Any]:
    """One record of the log.

    Args:
        step: steps done. tokens: read up to here. means: of the loss and further figures over the steps since the last record.
        norm: of the gradient of this step, before clipping. seconds: spent up to here. speed: tokens per second since the
            last record. mfu: likewise; None without hardware to measure against.
    """
    return {
        "step": step,
        "tokens": tokens,
        **means,
        "learning_rate": learning_rate,
        "grad_norm": norm,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(speed, 1),
        "mfu": None if mfu is None else round(mfu, 4),
    }


def write_log(folder: Path, log: Sequence[dict[str, Any]]) -> None:
    """Write `training.jsonl` into a checkpoint's folder, without what a clock says: so that a run that was killed and went on
    leaves the same bytes as one that was not.
    """
    kept = [{key: value for key, value in entry.items() if key not in CLOCKED} for entry in log]
    (folder / "training.jsonl").write_text("".join(to_json(entry, indent=None) + "\n" for entry in kept), "utf-8")


def cut(log: Sequence[dict[str, Any]], steps: int, time_limit: float | None) -> dict[str, Any]:
    """What an artifact says when its training ended before `steps` to keep a budget: `{"cut": {"steps", "of"}}`, else {}.

    A training that a setting of its own ended, `time_limit`, is known by that setting.
    """
    done = int(log[-1]["step"])
    return {"cut": {"steps": done, "of": steps}} if done < steps and time_limit is None else {}


def line(entry: dict[str, Any], end: int, left: float | None, meter: Meter | None, settings: Training) -> str:
    """The passing status: step, loss, tokens/s, MFU with its peak, memory, joules, money, time left."""
    parts = [f"step {entry['step']}/{end}", f"loss {entry['loss']:.3f}", f"{human(entry['tokens_per_second'], 'tok/s')}"]
    hardware = None if meter is None else meter.hardware
    whole = peak(hardware, settings)
    if entry["mfu"] is not None and whole is not None:
        parts.append(f"MFU {entry['mfu']:.1%} of {human(whole, 'FLOP/s')} {settings.precision}")
    usage = None if meter is None else _usage(meter)
    if usage is None:
        parts.append(human(memory(), "B"))
    else:
        parts += [str(usage.peak_memory), str(usage.energy), str(usage.money)]
    if left is not None:
        parts.append(f"{human(left, 's')} left")
    return ", ".join(parts)


def memory() -> float:
    """Peak bytes where no meter runs: of the GPU's allocator when one is in use, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _usage(meter: Meter) -> Usage | None:
    """What a meter has read so far; None when its block has not begun."""
    try:
        return meter.usage
    except RuntimeError:
        return None
