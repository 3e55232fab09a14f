"""Text files in: plain text, JSON lines, Parquet, folders of those, `.xz` of the first two. Mistakes name file and place.

Documents come in a fixed order (folders sorted by path), each as (id, text, source, metadata).
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from shoestring.artifact import MANIFEST
from shoestring.data import documents
from shoestring.errors import FileError, file_error

LINES = (".jsonl", ".ndjson")
TEXTS = (".txt", ".text", ".md", ".rst", ".tex", ".html", ".py", ".c", ".h", ".cpp", ".rs", ".go", ".java", ".js", ".ts", ".sh")
"""Endings that count as plain text inside a folder; a file named by itself is plain text whatever its ending."""
PIECE = 1 << 16
"""Bytes above which a plain-text file is cut into documents, at blank lines where there are some."""


class Document(NamedTuple):
    """One document as it was read; `metadata` is JSON or None."""

    id: str
    text: str
    source: str
    metadata: str | None = None


def read(path: Path | str, pieces: bool = True) -> Iterator[Document]:
    """The documents of a file, a folder or a corpus artifact, empty ones too.

    Args:
        pieces: cut long plain-text files into documents of about `PIECE` bytes; joined, they are the file.

    Raises:
        FileError: missing, empty, not UTF-8 (with the byte's offset), a JSON line or a column that does not fit.
    """
    path = Path(path)
    found = False
    if (path / MANIFEST).is_file():
        yield from _read_corpus(path)
        return
    for file in files(path):
        name = file.name if file == path else file.relative_to(path).as_posix()
        for document in _read_file(file, name, pieces):
            found = found or bool(document.text.strip())
            yield document
    if not found:
        raise FileError(f"{path}: holds no text; name a file or folder with some")


def read_texts(path: Path | str) -> list[str]:
    """The texts of a file, a folder or a corpus artifact; a plain-text file is one text.

    Raises:
        FileError: as `read`.
    """
    return [document.text for document in read(path, pieces=False) if document.text.strip()]


def files(path: Path) -> list[Path]:
    """The files that hold text: the one that is named, or those of a folder, sorted.

    Raises:
        FileError: there is none.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such file or folder; check the path")
    if path.is_file():
        return [path]
    if (path / MANIFEST).is_file():
        return [documents.parquet(path)]
    found = sorted(_walk(path), key=lambda p: p.relative_to(path).as_posix())
    if not found:
        kinds = ", ".join((*TEXTS, *LINES, ".parquet"))
        raise FileError(f"{path}: no file of a known kind in this folder; known: {kinds}, .xz of text and JSON lines")
    return found


def size(path: Path | str) -> float:
    """Bytes of text to expect of a path, from file sizes alone; 0 when nothing is there. Packed files count fourfold."""
    path = Path(path)
    try:
        return float(sum(f.stat().st_size * (4 if f.suffix in (".xz", ".parquet") else 1) for f in files(path)))
    except (FileError, OSError):
        return 0.0


def decode(content: bytes, path: Path, offset: int = 0) -> str:
    """UTF-8 to text, a byte-order mark left out, line ends as they are.

    Raises:
        FileError: with the offset of the first bad byte in the (unpacked) file.
    """
    try:
        return content.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        # Python counts from behind a byte-order mark.
        mark = 3 if offset == 0 and content.startswith(b"\xef\xbb\xbf") else 0
        at, byte = offset + error.start + mark, error.object[error.start]
        raise FileError(f"{path}: not UTF-8 at byte {at} (0x{byte:02x}); convert it, for example with iconv") from error


def _read_corpus(path: Path) -> Iterator[Document]:
    for batch in documents.read(path, Document._fields):
        for record in batch.to_pylist():
            yield Document(**record)


def _walk(folder: Path) -> Iterator[Path]:
    """Files of known kinds; hidden ones, and artifacts that we made inside the folder, are not the user's text."""
    for top, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and not (Path(top) / f / MANIFEST).is_file()]
        yield from (Path(top) / name for name in names if not name.startswith(".") and _readable(Path(name)))


def _readable(path: Path) -> bool:
    inner = Path(path.stem).suffix.lower() if path.suffix == ".xz" else path.suffix.lower()
    return inner in TEXTS or inner in LINES or path.suffix.lower() == ".parquet"


def _read_file(path: Path, name: str, pieces: bool) -> Iterator[Document]:
    inner = Path(path.stem).suffix.lower() if path.suffix == ".xz" else path.suffix.lower()
    try:
        if path.suffix.lower() == ".parquet":
            yield from _read_parquet(path, name)
        elif inner in LINES:
            with _open(path) as stream:
                yield from _read_lines(stream, path, name)
        else:
            with _open(path) as stream:
                text = decode(stream.read(), path)
            yield from _pieces(text, name) if pieces else [Document(name, text, _stem(name))]
    except OSError as error:
        raise file_error(path, error) from error
    except (lzma.LZMAError, EOFError) as error:
        raise FileError(f"{path}: can't be unpacked as .xz ({error}); it is damaged or not that kind of file") from error


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, lzma.open(path, "rb")) if path.suffix == ".xz" else path.open("rb")


def _read_lines(stream: BinaryIO, path: Path, name: str) -> Iterator[Document]:
    offset = 0
    for number, line in enumerate(stream, 1):
        text = decode(line, path, offset)
        offset += len(line)
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise FileError(f"{path}: line {number} is not JSON ({error}); mend or remove the line") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            keys = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise FileError(f"{path}: line {number} has no 'text' that is a string (it has: {keys}); name the field 'text'")
        # Lone surrogates are valid JSON but not text that UTF-8 can hold.
        if any("\ud800" <= c <= "\udfff" for c in record["text"]):
            raise FileError(f"{path}: line {number} has a lone surrogate (\\ud800-\\udfff) in 'text'; mend or remove the line")
        yield _from_record(record, f"{name}:{number}", _stem(name))


def _read_parquet(path: Path, name: str) -> Iterator[Document]:
    try:
        opened = pq.ParquetFile(path)
        columns = opened.schema_arrow.names
        if "text" not in columns or not _is_text(opened.schema_arrow.field("text").type):
            raise FileError(f"{path}: no column 'text' of strings (it has: {', '.join(columns)}); name the column 'text'")
        number = 0
        for batch in opened.iter_batches(batch_size=documents.ROWS):
            for record in batch.to_pylist():
                number += 1
                if record["text"] is not None:
                    yield _from_record(record, f"{name}:{number}", _stem(name))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FileError(f"{path}: can't be read as Parquet ({error}); it is damaged or not that kind of file") from error


def _from_record(record: dict[str, Any], name: str, source: str) -> Document:
    rest = {key: value for key, value in record.items() if key not in ("text", "source") and value is not None}
    given = record.get("source")
    found = given if isinstance(given, str) and given else source
    return Document(name, record["text"], found, json.dumps(rest, sort_keys=True, default=str) if rest else None)


def _pieces(text: str, name: str) -> Iterator[Document]:
    """One document, or several of about `PIECE` characters that end where a paragraph, else a line, ends."""
    if len(text) <= PIECE:
        yield Document(name, text, _stem(name))
        return
    start, number = 0, 0
    while start < len(text):
        end = start + PIECE
        if end < len(text):
            for mark in ("\n\n", "\n", " "):
                cut = text.rfind(mark, start + PIECE // 2, end)
                if cut >= 0:
                    end = cut + len(mark)
                    break
        number += 1
        yield Document(f"{name}#{number}", text[start:end], _stem(name))
        start = end


def _stem(name: str) -> str:
    """The source of a file: its first folder, or its name without endings."""
    first = name.split("/")[0]
    return first if "/" in name else first.split(".")[0] or first


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))
