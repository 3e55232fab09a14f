"""Where a run may write: into folders that are new, empty or its own. Nothing of the user's is ever written over."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from shoestring.artifact import LITTER, MANIFEST
from shoestring.drafts import named
from shoestring.errors import FileError, file_error, shown
from shoestring.files import read_object

LOCK = ".lock"
"""A file of ours in every folder of a run and every store."""


def claim(out: Path, store: Path) -> None:
    """See that a run may write into `out` and keep its artifacts in `store`.

    Raises:
        FileError: one of them holds something that is not a run's, or they are one folder.
    """
    if out.resolve() == store.resolve() or store.resolve() in out.resolve().parents:
        raise FileError(f"{out}: is where the artifacts are kept; choose another folder with --out")
    refuse_foreign(out, "run.json", ("recipe", "states", "store"))
    found = _entries(store)
    if found and LOCK not in found and not any((store / name / MANIFEST).is_file() for name in found):
        raise FileError(
            f"{store}: artifacts are kept here, and it holds {shown(found[0], quote=False)}, which is not shoestring's; choose a "
            "folder for the run elsewhere with --out"
        )


def refuse_foreign(folder: Path, record: str, keys: Collection[str], also: Collection[str] = ()) -> None:
    """See that a folder is new, empty or ours.

    Args:
        record: a file in it that says so: a JSON object with at least these `keys`.
        also: what may stand there before the record was written.

    Raises:
        FileError: names what stands there.
    """
    if folder.is_symlink() and not folder.exists():
        raise FileError(f"{folder}: is a link to nothing; remove it or choose another folder with --out")
    found = [name for name in _entries(folder) if name not in also and not name.startswith(f".{record}.draft-")]
    if record in found:
        try:
            if set(keys) <= read_object(folder / record).keys():
                return
        except FileError:
            pass
        raise FileError(
            f"{folder / record}: not written by shoestring, or damaged, and nothing is written over it; remove it or choose "
            "another folder with --out"
        )
    strange = [name for name in found if name != LOCK]
    if strange:
        raise FileError(
            f"{folder}: holds {shown(strange[0], quote=False)} and no {record} of shoestring's, and nothing is written over it; "
            "choose a new or an empty folder with --out"
        )


def _entries(folder: Path) -> list[str]:
    """The names in a folder, in order; none when it is not there."""
    try:
        named(folder.absolute() if str(folder) == "." else folder)
        return sorted(entry.name for entry in folder.iterdir() if entry.name not in LITTER)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise file_error(folder, error) from error
