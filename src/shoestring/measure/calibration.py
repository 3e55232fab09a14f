"""What this machine really reaches: measured once, kept in a file with date and versions, refused when these change.

Rooms above bring their own probes: functions from a `Hardware` to figures by name. Each figure is the median of repeats,
since other work on the machine comes and goes. Beside them stand a short trial's rate with its spread, and how busy other work
kept the cores: a later trial tells whether the machine is still the one that was measured.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from shoestring.errors import FileError, file_error
from shoestring.files import read_object, to_json
from shoestring.measure.hardware import Hardware, busy_cores
from shoestring.progress import Progress, silent

Probe = Callable[[Hardware], dict[str, float]]

FORMAT = 4
"""Raised when what a calibration file means changes, a probe's figures included: stored ones are then measured again."""


def home() -> Path:
    """Where Shoestring keeps what outlives a run: $SHOESTRING_HOME, else ~/.cache/shoestring."""
    return Path(os.environ.get("SHOESTRING_HOME") or Path.home() / ".cache" / "shoestring")


def calibration_file(hardware: Hardware) -> Path:
    """The file for a machine, by its name, count and threads."""
    key = re.sub(r"[^a-z0-9]+", "-", f"{hardware.name} {hardware.count}".lower()).strip("-")
    return home() / f"calibration-{key}.json"


def versions() -> dict[str, str]:
    """What a calibration depends on besides the machine."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "none"
    return {"format": str(FORMAT), "python": ".".join(platform.python_version_tuple()[:2]), "torch": torch}


def stored(hardware: Hardware) -> tuple[dict[str, float], str]:
    """The figures of a machine's stored calibration and their date; both empty without a valid one."""
    record, _ = _read(hardware)
    figures = {name: value for probe in record.get("probes", {}).values() for name, value in probe.items()}
    return figures, (f"{record['date']}, torch {record['versions']['torch']}" if record else "")


def calibrate(
    hardware: Hardware,
    probes: Mapping[str, Probe] | None = None,
    note: Callable[[str], None] = lambda text: None,
    fresh: bool = False,
    progress: Progress = silent,
) -> Hardware:
    """Measure what this machine reaches, store it, and return the hardware with it.

    A valid stored calibration is used again, and only probes that it lacks are run: about 10 s here, plus the rooms' own.
    When two short trials, seconds apart, agree on another speed than the stored one (a busier or quieter machine), all is
    measured again.

    Args:
        hardware: the machine as `detect` says it.
        probes: the rooms' own, by name.
        note: says a line after each probe.
        fresh: measure everything again.
        progress: shows which probe runs, and the share of them that is done.

    Raises:
        FileError: the calibration can't be written.
    """
    wanted: dict[str, Probe] = {**PROBES, **(probes or {})}
    record, why = _read(hardware)
    if why:
        note(f"{calibration_file(hardware)}: {why}; measuring this machine again")
    change = drifted(hardware.device, record["trial"]) if record and not fresh else 0.0
    if change:
        pace = f"{change:.2g} times faster" if change > 1 else f"{1 / change:.2g} times slower"
        busy = f"; other work kept {record['busy']:.1f} cores busy then, {busy_cores():.1f} now"
        note(f"this machine is {pace} than when it was calibrated ({record['date']}{busy}): measuring it again")
    if fresh or change:
        record = {}
    trial = record.get("trial") or trials(hardware.device)
    busy_then = record.get("busy", busy_cores())
    kept = {name: figures for name, figures in record.get("probes", {}).items() if name in wanted}
    missing = [name for name in wanted if name not in kept]
    for number, name in enumerate(missing, start=1):
        probe = wanted[name]
        progress(f"measuring {name}", (number - 1) / len(missing))
        start = time.perf_counter()
        # A probe may read what the probes before it have found, but never stale figures of its own.
        reached = {key: value for figures in kept.values() for key, value in figures.items()}
        kept[name] = probe(hardware.with_(reached=reached))
        note(f"calibrated {name} in {time.perf_counter() - start:.1f} s ({number} of {len(missing)})")
        record = {
            "hardware": hardware.name,
            "count": hardware.count,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "busy": busy_then,
            "trial": trial,
            "probes": kept,
        }
        _write(calibration_file(hardware), record)
    reached, date = stored(hardware)
    return hardware.with_(reached=reached, calibrated=date)


DRIFT = 1.15
"""How far the trial's rate must be from the stored one, as a factor either way, however little the trials spread."""
APART = 3.0
"""Seconds between two looks: what passes sooner is noise."""
LOOKS = 3


def trials(device: str) -> dict[str, float]:
    """FLOP/s of matrix products in a few looks of a fifth of a second: their median, and the largest over the smallest."""
    rates = [square_rate(device, "fp32", seconds=0.2) for _ in range(LOOKS)]
    return {"rate": median(rates), "spread": max(rates) / min(rates)}


def drifted(device: str, known: dict[str, float]) -> float:
    """How many times faster than at its calibration the machine is now; 0 when that is within noise.

    Noise is what the looks of either time spread over. A change counts when a second trial, seconds later, shows it too.
    """
    found = 0.0
    for look in range(2):
        if look:
            time.sleep(APART)
        now = trials(device)
        change, noise = now["rate"] / known["rate"], max(DRIFT, known["spread"], now["spread"])
        if 1 / noise <= change <= noise or (look and (change > 1) != (found > 1)):
            return 0.0
        found = change
    return found


def timed(
    work: Callable[[], object], seconds: float = 0.5, least: int = 5, synchronise: Callable[[], object] | None = None
) -> float:
    """Median seconds of one call, after two calls to warm up, over at least `least` calls and about `seconds` in all.

    A call that takes twice `seconds` by itself, such as a product in a precision that the processor has to emulate, is
    made twice, and the second counts: five more would tell no more.
    """
    taken: list[float] = []
    work()
    start = time.perf_counter()
    work()
    if synchronise:
        synchronise()
    if (second := time.perf_counter() - start) > 2 * seconds:
        return second
    begin = time.perf_counter()
    while len(taken) < least or time.perf_counter() - begin < seconds:
        if synchronise:
            synchronise()
        start = time.perf_counter()
        work()
        if synchronise:
            synchronise()
        taken.append(time.perf_counter() - start)
    return median(taken)


def square_rate(device: str, dtype: str, seconds: float = 0.4) -> float:
    """FLOP/s of the product of two large square matrices."""
    import torch

    size = 8192 if device == "cuda" else 1024
    left = torch.randn(size, size, device=device).to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    right, out = left.clone(), torch.empty_like(left)
    wait = torch.cuda.synchronize if device == "cuda" else None
    return 2.0 * size**3 / timed(lambda: torch.matmul(left, right, out=out), seconds, synchronise=wait)


def matmul_rates(hardware: Hardware) -> dict[str, float]:
    """FLOP/s of a square product in fp32 and bf16, bytes/s of a copy (read and written bytes both count)."""
    import torch

    figures = {f"matmul.{dtype}": square_rate(hardware.device, dtype) for dtype in ("fp32", "bf16")}
    source = torch.ones(1 << 28 if hardware.device == "cuda" else 1 << 25, device=hardware.device)
    target = torch.empty_like(source)
    wait = torch.cuda.synchronize if hardware.device == "cuda" else None
    figures["copy"] = 2.0 * source.nbytes / timed(lambda: target.copy_(source), synchronise=wait)
    return figures


def text_rate(hardware: Hardware) -> dict[str, float]:
    """Bytes/s at which one core splits text into words and counts them in Python, of the standard library's own source."""
    folder = Path(os.__file__).parent
    text = "".join(file.read_text("utf-8", "replace") for file in sorted(folder.glob("a*.py")))[:1_000_000]
    size = len(text.encode())

    def count_words() -> None:
        found: dict[str, int] = {}
        for word in re.findall(r"\w+", text):
            found[word] = found.get(word, 0) + 1

    return {"text": size / timed(count_words)}


def disk_rate(hardware: Hardware) -> dict[str, float]:
    """Bytes/s of writing and syncing a file of 32 MB beside the calibration."""
    block = os.urandom(1 << 20)

    def write() -> None:
        with tempfile.TemporaryFile(dir=home()) as stream:
            for _ in range(32):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())

    try:
        home().mkdir(parents=True, exist_ok=True)
        return {"disk.write": 32.0 * len(block) / timed(write, seconds=0.2, least=3)}
    except OSError as error:
        raise file_error(home(), error) from error


def process_bytes(hardware: Hardware) -> dict[str, float]:
    """Bytes of a fresh process that has loaded PyTorch and multiplied once: the base of every peak that the meter reads."""
    program = (
        "import torch; from shoestring.measure.memory import resident_bytes;"
        "x = torch.randn(64, 64, requires_grad=True); (x @ x).sum().backward(); print(resident_bytes())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    try:
        return {"process.bytes": float(ran.stdout.split()[-1])}
    except (ValueError, IndexError):
        return {}  # the assumption stands


PROBES: dict[str, Probe] = {
    "matmul": matmul_rates,
    "text": text_rate,
    "disk": disk_rate,
    "process": process_bytes,
}


def _read(hardware: Hardware) -> tuple[dict, str]:
    """The stored record, and nothing; or an empty one, and why it can't be used where there is a file."""
    file = calibration_file(hardware)
    if not file.exists():
        return {}, ""
    try:
        record = read_object(file)
        if record["versions"] != versions():
            return {}, "made with other versions"
        numbers = [value for figures in record["probes"].values() for value in figures.values()]
        numbers += [record["busy"], record["trial"]["rate"] - 1, record["trial"]["spread"] - 1]
        if isinstance(record["date"], str) and all(0 <= value < float("inf") for value in numbers):
            return record, ""
    except (FileError, KeyError, TypeError, AttributeError):
        pass
    return {}, "damaged"


def _write(file: Path, record: dict) -> None:
    draft = file.with_name(f".{file.name}.draft-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(to_json(record) + "\n", "utf-8")
        draft.replace(file)
    except OSError as error:
        raise file_error(file, error) from error
    finally:
        if draft.exists():
            draft.unlink()
