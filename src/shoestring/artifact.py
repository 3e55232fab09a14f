"""What passes between steps: a folder of open files with a manifest that proves it whole.

An artifact is written in a folder beside its final name, every file synced, the manifest last, and then renamed: at any
moment it is either there and whole, or not there. `artifact.json` holds the name it was written under, the kind, the size and
SHA-256 of each file, a free `about` (settings, counts, provenance), and a digest of all this.

Nothing but an artifact is ever written over. The old one is renamed aside, the new one takes its name, then the old one goes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring.drafts import beside, drafting, locked, named, sync
from shoestring.drafts import sweep as sweep
from shoestring.drafts import write_whole as write_whole
from shoestring.errors import DamagedArtifact, FileError, file_error, shown
from shoestring.files import read_object, to_json

MANIFEST = "artifact.json"
PARTS = {
    "corpus": "documents as Parquet",
    "instructions": "conversations as JSON lines",
    "tokens": "documents as numbers, with their tokenizer",
    "plan": "a model and its training, decided for a budget",
    "checkpoint": "a model and its tokenizer",
    "numbers": "figures of quality",
    "text": "what a model has written",
    "scores": "a figure for each document",
    "answering": "how a model answers: the settings of its engine",
}
"""What a step can make: each part of a recipe's state, and kind of artifact, with what it is."""

LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that file managers leave in any folder that a person looks into."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact says of itself."""

    name: str
    """The name it was written under; in a store that is its key."""
    kind: str
    files: dict[str, tuple[int, str]]
    about: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Bytes on disk, the manifest itself left out."""
        return sum(size for size, _ in self.files.values())

    @property
    def digest(self) -> str:
        """A digest of what the files hold."""
        return hashlib.sha256(to_json([self.kind, sorted(self.files.items())]).encode()).hexdigest()


def vacant(path: Path | str) -> Path:
    """The path, when an artifact may be written there: nothing is there, an empty folder, or an artifact and nothing else.

    Raises:
        FileError: names what stands there, or says that the path has no name of its own (`.`, `..`, `/`).
    """
    path = named(path)
    try:
        if path.is_symlink():
            raise FileError(f"{path}: is a link, and nothing is written over it; name the folder it points to, or another one")
        if not path.exists():
            return path
        if not path.is_dir():
            raise FileError(f"{path}: a file of this name is there, and nothing is written over it; choose another name")
        found = strangers(path)
    except OSError as error:
        raise file_error(path, error) from error
    if found:
        raise FileError(
            f"{path}: holds {shown(found[0], quote=False)}, which is not of an artifact of shoestring's, and nothing is written "
            "over it; choose another name or an empty folder"
        )
    return path


def strangers(path: Path) -> list[str]:
    """The files in a folder that its manifest does not name: all of them when it has none that can be read."""
    try:
        known = {MANIFEST, *_read(path).files}
    except FileError:
        known = set()
    found = (file for file in path.rglob("*") if file.is_symlink() or not file.is_dir())
    return sorted(name for file in found if (name := str(file.relative_to(path))) not in known and file.name not in LITTER)


@contextmanager
def writing(path: Path, kind: str, about: dict[str, Any] | None = None) -> Iterator[Path]:
    """A folder to fill; it becomes the artifact `path` when the block ends, and vanishes when the block fails.

    The `about` dictionary may be filled inside the block. An artifact that stands at `path` already is replaced.

    Raises:
        FileError: something else stands at `path`, the disk is full or the place can't be written.
    """
    if kind not in PARTS:
        raise ValueError(f"unknown artifact kind {kind}")
    about = {} if about is None else about
    path = vacant(path)
    try:
        with drafting(path) as draft:
            yield draft
            _seal(draft, path.name, kind, about)
            _give_name(draft, vacant(path))
    except OSError as error:
        raise file_error(path, error) from error


def manifest(path: Path) -> Manifest:
    """What the artifact at `path` says of itself; sizes are checked, checksums are not (`verify` does).

    Raises:
        FileError: no artifact is there.
        DamagedArtifact: the manifest can't be read, or a file is missing or has another size.
    """
    found = _read(path)
    for name, (size, _) in found.files.items():
        file = Path(path) / name
        if not file.is_file():
            raise DamagedArtifact(file, "the file is missing")
        if file.stat().st_size != size:
            raise DamagedArtifact(file, f"{file.stat().st_size} bytes instead of {size}")
    return found


def verify(path: Path) -> Manifest:
    """The manifest, after every file's SHA-256 has been compared with it, and no other file was found.

    Raises:
        FileError: no artifact is there.
        DamagedArtifact: names the first file that differs, or that does not belong there.
    """
    found = manifest(path)
    for name, (_, expected) in found.files.items():
        if checksum(Path(path) / name) != expected:
            raise DamagedArtifact(Path(path) / name, "its checksum differs")
    for name in strangers(Path(path)):
        raise DamagedArtifact(Path(path) / name, f"{MANIFEST} does not name this file")
    return found


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: Path) -> Manifest:
    """The manifest, proved by its own digest; the files it names are not looked at."""
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise FileError(f"{path}: not an artifact (it has no {MANIFEST}); name a folder that shoestring wrote")
    try:
        record = read_object(file)
        proof = record.pop("sha256")
        files = {name: (int(about["bytes"]), str(about["sha256"])) for name, about in record["files"].items()}
        found = Manifest(record["name"], record["kind"], files, record["about"])
    except (FileError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedArtifact(file, "its manifest can't be read") from error
    if proof != _proof(record):
        raise DamagedArtifact(file, "its own checksum differs")
    return found


def _seal(draft: Path, name: str, kind: str, about: dict[str, Any]) -> None:
    files = {}
    for file in sorted(p for p in draft.rglob("*") if p.is_file()):
        sync(file)
        files[str(file.relative_to(draft))] = {"bytes": file.stat().st_size, "sha256": checksum(file)}
    record = {"name": name, "kind": kind, "files": files, "about": about}
    write_whole(draft / MANIFEST, to_json({**record, "sha256": _proof(record)}, sort=True) + "\n")


def _proof(record: dict[str, Any]) -> str:
    """A digest of a manifest's content. Sorted twice: numbers as keys sort otherwise before they are written than after."""
    return hashlib.sha256(to_json(json.loads(to_json(record)), sort=True).encode("utf-8", "backslashreplace")).hexdigest()


def _give_name(draft: Path, path: Path) -> None:
    """Rename a sealed draft to its name. What stands there is set aside, and ends as the draft: an `.old-` is always whole."""
    if not path.exists():
        draft.rename(path)
        sync(path.parent)
        return
    old = beside(path, "old")
    with locked(path):
        path.rename(old)
        try:
            draft.rename(path)
        except BaseException:
            old.rename(path)
            raise
        sync(path.parent)
        old.rename(draft)
