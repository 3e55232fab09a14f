"""What passes between steps: a folder of open files with a manifest that proves it whole.

An artifact is written in a folder beside its final name, every file synced, the manifest last, and then renamed: at any
moment it is either there and whole, or not there. `artifact.json` holds the kind, the size and SHA-256 of each file, and
a free `about` (settings, counts, provenance).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring.errors import DamagedArtifact, FileError, file_error

MANIFEST = "artifact.json"
KINDS = ("corpus", "instructions", "tokens", "checkpoint", "plan", "numbers", "text")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact says of itself."""

    kind: str
    files: dict[str, tuple[int, str]]
    about: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Bytes on disk, the manifest itself left out."""
        return sum(size for size, _ in self.files.values())


@contextmanager
def writing(path: Path, kind: str, about: dict[str, Any] | None = None) -> Iterator[Path]:
    """A folder to fill; it becomes the artifact `path` when the block ends, and vanishes when the block fails.

    The `about` dictionary may be filled inside the block. An artifact that stands at `path` already is replaced.

    Raises:
        FileError: when the disk is full or the place can't be written.
    """
    path = Path(path)
    if kind not in KINDS:
        raise ValueError(f"unknown artifact kind {kind}")
    about = {} if about is None else about
    draft = path.with_name(f".{path.name}.draft-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        yield draft
        _seal(draft, kind, about)
        if path.exists():
            shutil.rmtree(path)
        draft.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise file_error(path, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def manifest(path: Path) -> Manifest:
    """What the artifact at `path` says of itself; sizes are checked, checksums are not (`verify` does).

    Raises:
        FileError: no artifact is there.
        DamagedArtifact: the manifest can't be read, or a file is missing or has another size.
    """
    record_path = Path(path) / MANIFEST
    try:
        record = json.loads(record_path.read_text("utf-8"))
        found = Manifest(record["kind"], {n: (f["bytes"], f["sha256"]) for n, f in record["files"].items()}, record["about"])
    except FileNotFoundError as error:
        raise FileError(f"{path}: not an artifact (it has no {MANIFEST}); name a folder that shoestring wrote") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifact(record_path, "its manifest can't be read") from error
    for name, (size, _) in found.files.items():
        file = Path(path) / name
        if not file.is_file():
            raise DamagedArtifact(file, "the file is missing")
        if file.stat().st_size != size:
            raise DamagedArtifact(file, f"{file.stat().st_size} bytes instead of {size}")
    return found


def verify(path: Path) -> Manifest:
    """The manifest, after every file's SHA-256 has been compared with it.

    Raises:
        FileError: no artifact is there.
        DamagedArtifact: names the first file that differs.
    """
    found = manifest(path)
    for name, (_, expected) in found.files.items():
        if checksum(Path(path) / name) != expected:
            raise DamagedArtifact(Path(path) / name, "its checksum differs")
    return found


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_whole(file: Path, content: str | bytes) -> None:
    """Write one file so that it is never seen half-written: beside its name, synced, renamed.

    Raises:
        FileError: when the disk is full or the place can't be written.
    """
    file = Path(file)
    draft = file.with_name(f".{file.name}.draft-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
        _sync(file.parent)
    except OSError as error:
        raise file_error(file, error) from error
    finally:
        if draft.exists():
            draft.unlink()


def sweep(folder: Path) -> None:
    """Remove drafts that a killed process left in `folder` (only drafts whose process is gone)."""
    for draft in Path(folder).glob(".*.draft-*"):
        process = draft.name.rpartition("-")[2]
        if process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink(missing_ok=True)


def _seal(draft: Path, kind: str, about: dict[str, Any]) -> None:
    files = {}
    for file in sorted(p for p in draft.rglob("*") if p.is_file()):
        _sync(file)
        files[str(file.relative_to(draft))] = {"bytes": file.stat().st_size, "sha256": checksum(file)}
    record = {"kind": kind, "files": files, "about": about}
    write_whole(draft / MANIFEST, json.dumps(record, indent=1, sort_keys=True) + "\n")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
