"""What kind of file it is: decided here, by its ending, for every room that reads text, rows or conversations.

| form | endings |
|---|---|
| text | `.txt .md .html .py` ... ; any other ending, when the file is named by itself and holds text |
| lines | `.jsonl .ndjson`: a JSON object a line |
| json | `.json`: objects one after the other, an array of them, or an object around such an array |
| csv | `.csv .tsv`: the first row names the columns |
| parquet | `.parquet` |

`.gz .bz2 .xz .zst` behind all but the last are unpacked. Upper and lower case are the same.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from shoestring.artifact import MANIFEST
from shoestring.errors import FileError, clipped, file_error

Form = Literal["text", "lines", "json", "csv", "parquet", "archive", "binary", "packed", "unknown"]

TEXTS = (
    *(".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".html", ".htm", ".xml", ".org", ".srt", ".log"),
    *(".py", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".js", ".ts", ".cs", ".rb", ".sh", ".sql"),
)
"""Endings that count as plain text inside a folder; a file named by itself is plain text whatever its ending."""
RECORDS: dict[str, Form] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
OTHER_COMPRESSED = (".lz4", ".br", ".lzma", ".z", ".lz", ".lzo", ".sz")
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tzst", ".7z", ".rar", ".whl", ".jar", ".egg", ".iso")
BINARIES = (
    *(".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".odt", ".rtf", ".epub", ".mobi", ".djvu"),
    *(
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".ico",
        ".svgz",
        ".mp3",
        ".mp4",
        ".wav",
        ".flac",
        ".ogg",
    ),
    *(
        ".safetensors",
        ".gguf",
        ".ggml",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".onnx",
        ".npy",
        ".npz",
        ".pkl",
        ".pickle",
        ".h5",
        ".hdf5",
    ),
    *(".arrow", ".feather", ".orc", ".avro", ".tfrecord", ".lance", ".db", ".sqlite", ".sqlite3", ".duckdb"),
    *(".exe", ".so", ".dll", ".dylib", ".o", ".a", ".pyc", ".class", ".wasm"),
)


class Kind(NamedTuple):
    """How a file is read: the form of its content, the compression around it, and its ending, for messages."""

    form: Form
    packing: str
    ending: str

    @property
    def readable(self) -> bool:
        """Whether a folder's file of this kind is read."""
        return self.form in ("text", "lines", "json", "csv", "parquet")


class Files(NamedTuple):
    """Where text may be: files in order, and how many others were left out, by ending or by reason."""

    found: list[Path]
    left_out: Counter[str]


def kind(path: Path | str) -> Kind:
    """The kind of a file, from its name alone.

    >>> kind("a.JSONL.gz")
    Kind(form='lines', packing='.gz', ending='.jsonl.gz')
    >>> kind("notes").form
    'unknown'
    """
    name = Path(path)
    packing = name.suffix.lower()
    packed = packing in COMPRESSED
    ending = Path(name.stem).suffix.lower() if packed else packing
    whole = ending + packing if packed else packing
    if packing in OTHER_COMPRESSED or (packed and ending in (".parquet", *OTHER_COMPRESSED, *COMPRESSED)):
        return Kind("packed", packing, whole)
    if ending in ARCHIVES:
        return Kind("archive", "", whole)
    if ending in BINARIES:
        return Kind("binary", "", whole)
    form = RECORDS.get(ending, "text" if ending in TEXTS else "unknown")
    return Kind(form, packing if packed else "", whole)


def named(path: Path) -> Kind:
    """The kind of a file that was named by itself: an unknown ending is plain text.

    Raises:
        FileError: an archive, a compression that is not read, a kind that holds no text.
    """
    found = kind(path)
    if found.form == "archive":
        raise FileError(f"{path}: {found.ending} is an archive; unpack it and name the folder")
    if found.form == "packed":
        raise FileError(
            f"{path}: {found.ending} is not unpacked here (only {', '.join(COMPRESSED)} of text and rows); unpack it first"
        )
    if found.form == "binary":
        raise FileError(f"{path}: {found.ending} files hold no plain text; convert it to text, JSON lines, CSV or Parquet first")
    return found._replace(form="text") if found.form == "unknown" else found


def files(path: Path | str) -> Files:
    """The file that is named, or those of a folder that can be read, sorted by path.

    Hidden files, and artifacts that we made inside the folder, are not the user's text.

    Raises:
        FileError: nothing there, no file of a known kind, or a folder that can't be read.
    """
    path = Path(path)
    try:
        folder = path.is_dir()
        if not folder and not path.exists():
            raise FileError(f"{path}: no such file or folder; check the path")
    except (OSError, ValueError) as error:
        raise FileError(f"{clipped(str(path))}: not a path that can be opened ({error})") from error
    if not folder:
        return Files([path], Counter())
    if (path / MANIFEST).is_file():
        from shoestring.data import documents

        return Files([documents.parquet(path)], Counter())
    every = sorted(_walk(path), key=lambda p: p.relative_to(path).as_posix())
    found = [file for file in every if kind(file).readable]
    left_out = Counter(_why(file) for file in every if not kind(file).readable)
    if not found:
        there = f" (it has: {listed(left_out)})" if left_out else ""
        known = ", ".join((*TEXTS[:3], "...", *RECORDS))
        packings = ", ".join(COMPRESSED)
        raise FileError(f"{path}: no file of a known kind in this folder{there}; known: {known}; all but Parquet also {packings}")
    return Files(found, left_out)


def listed(left_out: Counter[str], most: int = 8) -> str:
    """Counts in words, the largest first.

    >>> listed(Counter({".png": 2, ".pdf": 1}))
    '2 .png, 1 .pdf'
    """
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {clipped(what, 60)}" for what, count in ordered[:most]]
    more = sum(count for _, count in ordered[most:])
    return ", ".join(shown + [f"{more:,} others"] * bool(more))


def left_out_note(who: str, left_out: Counter[str]) -> str:
    """The one note about files of a folder that were not read."""
    count = left_out.total()
    return f"{who}: {count:,} file{'s' * (count != 1)} of the folder left out: {listed(left_out)}"


def _why(file: Path) -> str:
    ending = kind(file).ending
    return "linked folder" if file.is_dir() else ending if 1 < len(ending) <= 20 else "without an ending"


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise file_error(Path(error.filename or folder), error) from error

    for top, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [f for f in folders if not f.startswith(".") and not (Path(top) / f / MANIFEST).is_file()]
        # Links to folders are not followed: they may lead out of it, or round in a circle.
        yield from (Path(top) / name for name in folders if (Path(top) / name).is_symlink())
        yield from (Path(top) / name for name in names if not name.startswith("."))
