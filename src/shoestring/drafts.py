"""Files and folders that are there whole or not at all: written beside their final name, synced, renamed.

A draft is locked while its process lives, and the lock ends with the process, whatever ended that. So `sweep` knows what killed
processes left, also where numbers of processes recur or another container's are not seen.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shoestring.errors import FileError, file_error, shown

_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<what>draft|old)-(?P<process>[0-9]+)", re.DOTALL)
_BEGUN = time.time()


DEEPEST = 200
"""Parts of the longest path that is written to; Python makes missing folders one inside another call."""


def beside(path: Path, what: str) -> Path:
    """Where this thread keeps a `draft` of something, or the `old` one that is being replaced."""
    return path.with_name(f".{path.name}.{what}-{threading.get_native_id()}")  # in the main thread the process's number


def named(path: Path | str) -> Path:
    """The path, when its last part is a name.

    Raises:
        FileError: it is empty, `.`, `..` or `/`, or holds a NUL.
    """
    path = Path(path)
    if len(path.parts) > DEEPEST:
        raise FileError(f"{shown(str(path), quote=False)}: a path of {len(path.parts):,} parts; name a place that is less deep")
    if path.name in ("", "..") or "\0" in str(path):
        raise FileError(f"{shown(str(path), quote=False)}: names no file or folder of its own; give it a name, such as out")
    return path


@contextmanager
def drafting(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` while the block runs. What killed processes left of `path` is tidied up first.

    Raises:
        OSError: it can't be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    draft = beside(path, "draft")
    draft.mkdir()
    try:
        with locked(draft):
            yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_whole(file: Path, content: str | bytes) -> None:
    """Write one file so that it is never seen half-written: beside its name, synced, renamed.

    Raises:
        FileError: a folder is there, the disk is full or the place can't be written.
    """
    file = named(file)
    draft = beside(file, "draft")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A file name that is not UTF-8 may be part of the text; as an escape it is still JSON.
            stream.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
            draft.replace(file)
        sync(file.parent)
    except OSError as error:
        raise file_error(file, error) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def sweep(folder: Path, name: str | None = None) -> None:
    """Tidy up what killed processes left in `folder`: drafts go, and an artifact that was to be replaced gets its name back.

    Args:
        name: only what was left of the file or artifact of this name: for a folder that is not ours alone.

    Raises:
        OSError: it can't be removed.
    """
    for left in sorted(Path(folder).glob(".*-*")):
        found = _LEFT.fullmatch(left.name)
        if found is None or name not in (None, found["name"]):
            continue
        with suppress(FileNotFoundError), locked(left) as free:
            if not free or _is_own(left, int(found["process"])):
                continue
            whole = left.with_name(found["name"])
            if found["what"] == "old" and not os.path.lexists(whole):
                left.rename(whole)
            elif left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)


def _is_own(left: Path, process: int) -> bool:
    """Whether this process has just made a draft; one from before it began is of another that had the same number."""
    return process == os.getpid() and left.lstat().st_mtime >= _BEGUN


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a file or folder for the block; False when another holds it. The lock ends with its process, whatever ends that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile, or not ours to open
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            free = False
        yield free
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
