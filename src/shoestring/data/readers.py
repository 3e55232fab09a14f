"""Documents of files: plain text, and the texts in rows of JSON, CSV or Parquet; folders of those. Mistakes name file and place.

Documents come in a fixed order (folders sorted by path), each as (id, text, source, metadata).
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shoestring.artifact import MANIFEST
from shoestring.data import documents, kinds
from shoestring.data.packed import unpacked
from shoestring.data.rows import Row, rows_of
from shoestring.errors import FileError, shown

PIECE = 1 << 16
"""Characters above which a plain-text file is cut into documents, at blank lines where there are some."""
WHOLE = 1 << 30
"""Characters of the longest plain-text file that is read as one text."""
TEXT = "text"
"""The field of a row that holds its text, unless another one is named."""


class Document(NamedTuple):
    """One document as it was read; `metadata` is JSON or None."""

    id: str
    text: str
    source: str
    metadata: str | None = None


def read(path: Path | str, pieces: bool = True, field: str = TEXT, left_out: Counter[str] | None = None) -> Iterator[Document]:
    """The documents of a file, a folder or a corpus artifact, empty ones too.

    Args:
        pieces: cut long plain-text files into documents of about `PIECE` characters; joined, they are the file.
        field: the field (column) of rows that holds the text.
        left_out: counts files of a folder that are not read, by ending and reason.

    Raises:
        FileError: missing, empty, not UTF-8 (with the byte's offset), a row or a column that does not fit.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        yield from _read_corpus(path)
        return
    left_out = Counter() if left_out is None else left_out
    listed, found = kinds.files(path), False
    left_out.update(listed.left_out)
    for file in listed.found:
        if file != path and (reason := _no_documents(file, field)):
            left_out[f"{kinds.kind(file).ending} {reason}"] += 1
            continue
        name = _printable(file.name if file == path else file.relative_to(path).as_posix())
        for document in _read_file(file, name, pieces, field):
            found = found or bool(document.text.strip())
            yield document
    if not found:
        without = f" (left out: {kinds.listed(left_out)})" if left_out else ""
        raise FileError(f"{path}: holds no text{without}; name a file or folder with some")


def read_texts(path: Path | str, field: str = TEXT, note: Callable[[str], None] | None = None) -> list[str]:
    """The texts of a file, a folder or a corpus artifact; a plain-text file is one text.

    Args:
        note: told once which files of a folder were left out.

    Raises:
        FileError: as `read`.
    """
    left_out: Counter[str] = Counter()
    texts = [document.text for document in read(path, False, field, left_out) if document.text.strip()]
    if left_out and note is not None:
        note(kinds.left_out_note(str(path), left_out))
    return texts


def size(path: Path | str) -> float:
    """Bytes of text to expect of a path, from file sizes alone; 0 when nothing is there. Packed files count fourfold."""
    try:
        return float(sum(file.stat().st_size * _unfolding(file) for file in kinds.files(path).found))
    except (FileError, OSError):
        return 0.0


def _unfolding(file: Path) -> int:
    kind = kinds.kind(file)
    return 4 if kind.packing or kind.form == "parquet" else 1


def _read_corpus(path: Path) -> Iterator[Document]:
    for batch in documents.read(path, Document._fields):
        for record in batch.to_pylist():
            yield Document(**record)


def _no_documents(file: Path, field: str) -> str:
    """Why a folder's .json, .csv or .tsv is no file of documents, judged by its first row: they often hold other things."""
    if kinds.kind(file).form not in ("json", "csv"):
        return ""
    try:
        first = next(rows_of(file), None)
    except FileError:
        return "that can't be read as rows"
    return "" if first is None or isinstance(first.record.get(field), str) else f"without {shown(field)}"


def _read_file(path: Path, name: str, pieces: bool, field: str) -> Iterator[Document]:
    kind = kinds.named(path)
    if kind.form == "text":
        with unpacked(path, kind.packing) as stream:
            yield from (
                _pieces(_plain(stream.text(), path), name, PIECE) if pieces else [_whole(_plain(stream.text(), path), name, path)]
            )
        return
    for row in rows_of(path):
        yield _from_row(row, field, f"{name}:{row.number}", _stem(name))


def _plain(parts: Iterator[str], path: Path) -> Iterator[str]:
    """A plain text as it comes, every line end as "\\n": it must not depend on the system that a file was made on."""
    ends = io.IncrementalNewlineDecoder(None, translate=True)
    for part in parts:
        if "\0" in part:
            raise FileError(f"{path}: holds NUL bytes, so it is no UTF-8 text but a binary file or UTF-16; convert it")
        yield ends.decode(part)
    yield ends.decode("", final=True)


def _whole(parts: Iterator[str], name: str, path: Path) -> Document:
    kept, length = [], 0
    for part in parts:
        kept.append(part)
        length += len(part)
        if length > WHOLE:
            raise FileError(f"{path}: more than {WHOLE:,} characters in one text; cut it, or make a corpus of it first")
    return Document(name, "".join(kept), _stem(name))


def _pieces(parts: Iterator[str], name: str, size: int) -> Iterator[Document]:
    """One document, or several of about `size` characters that end where a paragraph, else a line, ends."""
    text, start, number = "", 0, 0
    for part in parts:
        text, start = text[start:] + part, 0
        while len(text) - start > size:
            end = start + size
            for mark in ("\n\n", "\n", " "):
                cut = text.rfind(mark, start + size // 2, end)
                if cut >= 0:
                    end = cut + len(mark)
                    break
            number += 1
            yield Document(f"{name}#{number}", text[start:end], _stem(name))
            start = end
    if number == 0 or len(text) > start:
        yield Document(f"{name}#{number + 1}" if number else name, text[start:], _stem(name))


def _from_row(row: Row, field: str, name: str, source: str) -> Document:
    """The document in a row; one whose text is null is empty."""
    record = row.record
    text = record.get(field)
    if text is None and field in record:
        text = ""
    if not isinstance(text, str):
        texts = ", ".join(key for key, value in record.items() if isinstance(value, str))
        there = shown(
            f"fields that hold text: {texts}" if texts else f"no field holds text; it has: {', '.join(record)}", quote=False
        )
        raise FileError(f"{row.where}: no {shown(field)} that is a string ({there}); name one with `field` (--field)")
    # Lone surrogates are valid JSON but not text that UTF-8 can hold.
    if not _encodable(text):
        raise FileError(f"{row.where}: a lone surrogate (\\ud800-\\udfff) in {shown(field)}; mend or remove the row")
    rest = {key: value for key, value in record.items() if key not in (field, "source") and value is not None}
    given = record.get("source") if field != "source" else None
    found = _printable(given) if isinstance(given, str) and given else source
    return Document(name, text, found, _metadata(rest) if rest else None)


def _metadata(rest: dict[str, Any]) -> str:
    """The other fields as JSON; what JSON can't hold (NaN, bytes, endless depth) is put in words."""
    try:
        return json.dumps(rest, sort_keys=True, default=_in_words, allow_nan=False)
    except (ValueError, RecursionError):
        rest = {key: value if _is_json(value) else shown(value) for key, value in rest.items()}
        return json.dumps(rest, sort_keys=True, default=_in_words)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, default=_in_words, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _in_words(value: Any) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(name: str) -> str:
    """A name as UTF-8 can hold it: bytes of a file name that are not UTF-8, and lone surrogates, as escapes."""
    return name if _encodable(name) else name.encode("utf-8", "backslashreplace").decode()


def _stem(name: str) -> str:
    """The source of a file: its first folder, or its name without endings."""
    first = name.split("/")[0]
    return first if "/" in name else first.split(".")[0] or first
