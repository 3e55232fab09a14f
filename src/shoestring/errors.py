"""What a user can do wrong, and how it is said: one line that names the place, the value, what is allowed, what to do.

The command line prints such an error without a traceback and ends with 2. Anything else that is raised is our own fault.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

LONGEST = 300
"""Characters of a user's own value that a message repeats."""

MOST_NAMES = 60
"""Names that a message lists; there are more of them only where a user's own file brings them."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ShoestringError(Exception):
    """A mistake that a user can mend; its text is one line, without control characters, of words of bounded length."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(clipped(_CONTROL.sub(_escaped, word)) for word in message.split()))


def shown(value: Any, most: int = LONGEST, quote: bool = True) -> str:
    """A user's value as a message repeats it: at most `most` characters, however large or deep it is.

    >>> shown("x" * 1000, most=8)
    "'xxxxx … (1,000 characters)"
    """
    if isinstance(value, str):
        part = value[:most]
        text = clipped(repr(part) if quote else part, most)
        return text if len(value) <= most else f"{text} ({len(value):,} characters)"
    try:
        return clipped(_SHORT.repr(value), most)
    except Exception:  # a repr that fails, such as that of a number of 5,000 digits
        return f"a {type(value).__name__}"


def clipped(text: str, most: int = LONGEST) -> str:
    """A text cut to `most` characters, with an ellipsis for what is gone."""
    return text if len(text) <= most else f"{text[: most - 2]} …"


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 4, 200, 200, 40
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = 8


class SettingError(ShoestringError):
    """A setting that does not exist or does not fit; the message starts with the setting's dotted path."""


class FileError(ShoestringError):
    """A file that is missing, unreadable or not what it should be; the message starts with its path."""


class DiskFull(FileError):
    """No room is left for what was to be written."""


class DamagedArtifact(FileError):
    """An artifact whose bytes are not those that were written."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: damaged ({what}); it can't be used: delete it, or run its recipe again to rebuild it")
        self.path = path


class BudgetError(ShoestringError):
    """A budget that can't be met; the message says what is short, and by how much."""


class NotFinite(ShoestringError):
    """Numbers that are NaN or infinite, in weights or in what a model computes; the message says where they were found."""


class DeviceError(ShoestringError):
    """A device or an optional package that is not there."""


def together(faults: Sequence[str], most: int = 20) -> str:
    """Several faults as one line, `most` of them at the most."""
    more = [f"and {len(faults) - most} more"] if len(faults) > most else []
    return "; ".join([*faults[:most], *more])


def nearest(name: str, allowed: Iterable[str]) -> str:
    """What to say about an unknown name: the nearest valid one, and all that is allowed.

    >>> nearest("bist", ["bits", "group_size"])
    "did you mean 'bits'? allowed: bits, group_size"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name[:LONGEST], names, n=1, cutoff=0.5)
    hint = f"did you mean '{clipped(close[0], 60)}'? " if close else ""
    listed = ", ".join(clipped(each, 60) for each in names[:MOST_NAMES]) or "nothing"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{hint}allowed: {listed}{more}"


def file_error(path: Path | str, error: OSError) -> FileError:
    """Say an operating-system error (no such file, no space left, no permission) as one line about `path`."""
    advice = {
        2: "no such file or folder; check the path",
        13: "permission denied; check who owns it",
        17: "exists already; choose another name or remove it",
        20: "a part of this path is a file, not a folder",
        21: "is a folder; name a file",
        28: "no space left on the device; free some or choose another folder with --out",
        30: "the file system is read-only; choose another folder with --out",
        122: "the disk quota is used up; free some or choose another folder with --out",
    }
    kind = DiskFull if error.errno in (28, 122) else FileError
    return kind(f"{path}: {advice.get(error.errno or 0, error.strerror or str(error))}")
