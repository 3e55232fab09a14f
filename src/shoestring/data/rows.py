"""Rows of a file, one at a time: the one reader of JSON lines, JSON, CSV, TSV and Parquet for data, evaluate and tune.

Memory holds one row (an array in JSON is read element by element, Parquet by batches), whatever the size of the file.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from shoestring.data import kinds
from shoestring.data.packed import Unpacked, decode, unpacked
from shoestring.errors import FileError, file_error, shown
from shoestring.files import SMALL, parse_json, regular

WRAPPERS = ("data", "rows", "train", "validation", "test", "examples", "instances", "records", "items")
"""Keys under which an export keeps its rows."""
OWN_LISTS = ("messages", "conversations", "conversation", "prompt", "completion", "chosen", "rejected", "tools")
"""Keys whose lists of objects are part of one row."""
BATCH = 256
"""Rows of Parquet that are in memory at once."""
Record = dict[str, Any]


class Row(NamedTuple):
    """A row, its number (that of its line where rows are lines), and its place as a message begins with it."""

    number: int
    where: str
    record: Record


def records(path: Path | str, left_out: Counter[str] | None = None) -> Iterator[tuple[str, Record]]:
    """The rows of a file, or of all files of a folder, each with its place ("chat.jsonl:3"), in order.

    Args:
        left_out: counts files of a folder that are not read, by ending.

    Raises:
        FileError: missing, of a kind without rows (plain text, archives, ...), or a row that is not an object; with its place.
    """
    path = Path(path)
    found = kinds.files(path)
    if left_out is not None:
        left_out.update(found.left_out)
    for file in found.found:
        if not holds_records(file):
            kinds.named(file)
            raise FileError(f"{file}: is read as plain text, not as rows; give {', '.join(kinds.RECORDS)}")
        for row in rows_of(file):
            yield row.where, row.record


def holds_records(path: Path | str) -> bool:
    """Whether a file's ending says that it holds rows."""
    return kinds.kind(path).form in ("lines", "json", "csv", "parquet")


def rows_of(file: Path) -> Iterator[Row]:
    """The rows of one file whose kind has rows.

    Raises:
        FileError: as `records`.
    """
    what = kinds.named(file)
    if what.form == "parquet":
        yield from _parquet(file)
        return
    with unpacked(file, what.packing) as stream:
        if what.form == "lines":
            yield from _lines(stream)
        elif what.form == "json":
            yield from _json(stream)
        else:
            yield from _csv(stream, "\t" if what.ending.startswith(".tsv") else ",")


def _lines(stream: Unpacked) -> Iterator[Row]:
    for number, text in enumerate(_decoded(stream), 1):
        if text.strip():
            where = f"{stream.path}:{number}"
            yield Row(number, where, _object(parse_json(text, where, "mend or remove the line"), where))


class _Values:
    """JSON values of a text that comes in pieces; one value is in memory at a time."""

    # Where a text that merely stops too early is at fault, it is within this many characters of its end.
    NEAR_END = 16
    SPACE = re.compile(r"[ \t\r\n]*")
    DECODER = json.JSONDecoder()

    def __init__(self, stream: Unpacked) -> None:
        self.path, self.pieces, self.text, self.at, self.line = stream.path, stream.text(), "", 0, 1

    def more(self, size: int = 1) -> bool:
        """Read at least `size` further characters; whether there were any."""
        kept, got = [self.text[self.at :]], 0
        while got < size and (piece := next(self.pieces, None)) is not None:
            kept.append(piece)
            got += len(piece)
        self.text, self.at = "".join(kept), 0
        return got > 0

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            space = self.SPACE.match(self.text, self.at)
            assert space is not None
            self._pass(space.end())
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def skip(self) -> None:
        """Pass the character that `peek` saw."""
        self._pass(self.at + 1)

    def value(self, where: str) -> Any:
        """The next value.

        Raises:
            FileError: it is not JSON, or has more than `SMALL` characters.
        """
        while True:
            try:
                end = self.DECODER.raw_decode(self.text, self.at)[1]
                break
            except json.JSONDecodeError as error:
                fault = len(self.text) if error.msg.startswith("Unterminated string") else error.pos
            except (RecursionError, ValueError):
                end = len(self.text)
                break
            size = len(self.text) - self.at
            if size > SMALL:
                raise FileError(f"{where}: has more than {SMALL:,} characters; is it the right kind of file?")
            if fault < len(self.text) - self.NEAR_END or not self.more(size):
                end = len(self.text)
                break
        found = parse_json(self.text[self.at : end], where)
        self._pass(end)
        return found

    def _pass(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end


def _json(stream: Unpacked) -> Iterator[Row]:
    values = _Values(stream)
    if values.peek() == "[":
        yield from _array(values)
        return
    alone = True
    while values.peek():
        line = values.line
        where = f"{values.path}:{line}"
        record = _object(values.value(where), where)
        if alone and not values.peek():
            yield from _single(record, values.path)
            return
        alone = False
        yield Row(line, where, record)


def _array(values: _Values) -> Iterator[Row]:
    values.skip()
    mark, number = values.peek(), 0
    while mark != "]":
        number += 1
        where = f"{values.path}: row {number}"
        yield Row(number, where, _object(values.value(where), where))
        mark = values.peek()
        if mark == ",":
            values.skip()
            values.peek()
        elif mark != "]":
            raise FileError(f"{where}: neither a comma nor the array's end follows; the file is cut off or damaged")
    values.skip()
    if values.peek():
        raise FileError(
            f"{values.path}:{values.line}: more text behind the end of the array; write one array, or an object a line"
        )


def _single(record: Record, path: Path) -> Iterator[Row]:
    """The rows of a file that is one object: the list that it wraps, or itself."""
    lists = [key for key, value in record.items() if key not in OWN_LISTS and _list_of(value, dict)]
    wraps = [key for key in lists if key in WRAPPERS] or (lists if len(record) == 1 else [])
    if len(wraps) > 1:
        raise FileError(
            f"{path}: holds several lists of rows ({shown(', '.join(wraps), quote=False)}); give each a file of its own"
        )
    if wraps:
        for number, item in enumerate(record[wraps[0]], 1):
            where = f"{path}: row {number} of {shown(wraps[0])}"
            inner = item.get("row") if isinstance(item, dict) and "row_idx" in item else item  # the form of a datasets viewer
            yield Row(number, where, _object(inner, where))
        return
    by_column = all(_list_of(value, (str, int, float)) or _numbered(value) for value in record.values())
    if record and (by_column or (_list_of(record.get("columns"), str) and _list_of(record.get("data"), list))):
        raise FileError(
            f"{path}: is written column by column, not row by row; write an object a line "
            "(pandas: to_json(orient='records', lines=True))"
        )
    yield Row(1, f"{path}:1", record)


def _list_of(value: Any, type_: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], type_)


def _numbered(value: Any) -> bool:
    """Whether it is a column as pandas writes it: {"0": ..., "1": ...}."""
    return isinstance(value, dict) and bool(value) and all(key.isdecimal() for key in value)


def _csv(stream: Unpacked, delimiter: str) -> Iterator[Row]:
    lines = _decoded(stream)
    first = next(lines, "")
    if delimiter == "," and "," not in first and ";" in first:  # as spreadsheets write it where the comma is decimal
        delimiter = ";"
    csv.field_size_limit(max(csv.field_size_limit(), SMALL))
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        where = f"{stream.path}:{line}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise FileError(f"{where}: can't be read as a row of CSV ({error}); mend its quotes or remove the row") from error
        if cells is None:
            return
        if cells and header is None:
            header = cells
            if len(set(header)) != len(header):
                raise FileError(
                    f"{where}: the first row names a column twice ({shown(', '.join(header), quote=False)}); rename one"
                )
        elif cells and header is not None:
            if len(cells) != len(header):
                raise FileError(f"{where}: {len(cells)} cells where the first row names {len(header)} columns; mend the row")
            yield Row(line, where, dict(zip(header, cells, strict=True)))
        line = reader.line_num + 1


def _decoded(stream: Unpacked) -> Iterator[str]:
    offset = 0
    for line in stream.lines():
        yield decode(line, stream.path, offset)
        offset += len(line)


def _parquet(file: Path) -> Iterator[Row]:
    number = 0
    try:
        with regular(file).open("rb") as stream:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=BATCH):
                for record in batch.to_pylist():
                    number += 1
                    yield Row(number, f"{file}: row {number}", {key: _as_text(value) for key, value in record.items()})
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, ValueError) as error:
        place = f" behind row {number}" if number else ""
        message = shown(str(error), quote=False)
        raise FileError(f"{file}: can't be read as Parquet{place} ({message}); it is damaged or not that kind of file") from error
    except OSError as error:
        if error.errno is not None:
            raise file_error(file, error) from error
        raise FileError(f"{file}: can't be read as Parquet ({error}); it is damaged or not that kind of file") from error


def _as_text(value: Any) -> Any:
    """Bytes as the UTF-8 text that they mostly are in columns of binary."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise FileError(f"{where}: a {type(value).__name__}, not an object with named fields; mend or remove it")
    return value
