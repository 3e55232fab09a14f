"""Rows of a task: a JSONL file (or .jsonl.xz) whose form its keys tell.

| form | keys |
|---|---|
| choice | `query`, `choices`, `gold` (its number); HellaSwag's `ctx`, `endings`, `label` mean the same |
| choice of contexts | `context_options`, `continuation`, `gold` (Winogrande) |
| pair | `sentence_good`, `sentence_bad` (BLiMP) |
| cloze | `context`, `continuation` |
| exact match | `context`, `answer` |
"""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shoestring.errors import FileError, file_error

Form = Literal["choice", "cloze", "exact"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Texts of which one is right: (context, continuation) pairs, and the number of the right one."""

    options: tuple[tuple[str, str], ...]
    gold: int


@dataclass(frozen=True, slots=True)
class Cloze:
    """A text and how it goes on."""

    context: str
    continuation: str


@dataclass(frozen=True, slots=True)
class Exact:
    """A prompt and the answer that must come word for word."""

    context: str
    answer: str


Row = Choice | Cloze | Exact


def read_rows(path: Path | str, limit: int | None = None) -> list[Row]:
    """The rows of a task file, all of one form.

    Args:
        limit: the first so many.

    Raises:
        FileError: names the file, the line, and what is wrong with it.
    """
    path = Path(path)
    rows: list[Row] = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        if limit is not None and len(rows) >= limit:
            break
        rows.append(_row(line, f"{path}:{number}"))
        if type(rows[-1]) is not type(rows[0]):
            raise FileError(f"{path}:{number}: another form of task than the first row; put each form in a file of its own")
    if not rows:
        raise FileError(f"{path}: holds no rows; a task is a JSONL file with a row a line")
    return rows


def task_name(path: Path | str) -> str:
    """A task's name: the file's, without endings."""
    return Path(path).name.split(".")[0]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8-sig")
    except OSError as error:
        raise file_error(path, error) from error
    except lzma.LZMAError as error:
        raise FileError(f"{path}: can't be unpacked as .xz ({error}); it is damaged or not that kind of file") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 at byte {error.start}; convert it, for example with iconv") from error


def _row(line: str, where: str) -> Row:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise FileError(f"{where}: not JSON ({error}); mend or remove the line") from error
    if not isinstance(record, dict):
        raise FileError(f"{where}: a {type(record).__name__}, not an object; mend or remove the line")
    keys = record.keys()
    if keys >= {"query", "choices", "gold"}:
        return _choice(record, "query", "choices", "gold", where)
    if keys >= {"ctx", "endings", "label"}:
        return _choice(record, "ctx", "endings", "label", where)
    if keys >= {"context_options", "continuation", "gold"}:
        contexts, continuation = _strings(record, "context_options", where), _string(record, "continuation", where)
        options = tuple((context, joined(context, continuation)) for context in contexts)
        return Choice(options, _gold(record, "gold", len(options), where))
    if keys >= {"sentence_good", "sentence_bad"}:
        return Choice((("", _string(record, "sentence_good", where)), ("", _string(record, "sentence_bad", where))), 0)
    if keys >= {"context", "continuation"}:
        context = _string(record, "context", where, may_be_empty=True)
        return Cloze(context, joined(context, _string(record, "continuation", where)))
    if keys >= {"context", "answer"}:
        return Exact(_string(record, "context", where), _string(record, "answer", where))
    found = ", ".join(sorted(map(str, keys)))
    raise FileError(
        f"{where}: no known form of task; needs query, choices, gold | context, continuation | context, answer; has {found}"
    )


def joined(context: str, continuation: str) -> str:
    """A continuation with the space that stands between it and its context, where one is missing."""
    bare = not context or context[-1].isspace() or continuation[:1].isspace()
    return continuation if bare else f" {continuation}"


def _choice(record: dict[str, Any], query: str, choices: str, gold: str, where: str) -> Choice:
    context = _string(record, query, where, may_be_empty=True)
    options = tuple((context, joined(context, text)) for text in _strings(record, choices, where))
    return Choice(options, _gold(record, gold, len(options), where))


def _string(record: dict[str, Any], key: str, where: str, may_be_empty: bool = False) -> str:
    value = record[key]
    if not isinstance(value, str) or not (value or may_be_empty):
        raise FileError(f"{where}: {key} must be {'a' if may_be_empty else 'a non-empty'} string, got {value!r}")
    return value


def _strings(record: dict[str, Any], key: str, where: str) -> list[str]:
    value = record[key]
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(text, str) and text for text in value):
        raise FileError(f"{where}: {key} must be a list of at least two non-empty strings, got {value!r}")
    return value


def _gold(record: dict[str, Any], key: str, count: int, where: str) -> int:
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise FileError(f"{where}: {key} must be the number of a choice, 0 to {count - 1}, got {value!r}")
    return value
