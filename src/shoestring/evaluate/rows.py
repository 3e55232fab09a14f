"""Rows of a task: a file of JSON lines, JSON, CSV or Parquet (`data.records`) whose form its keys tell.

| form | keys |
|---|---|
| choice | `query`, `choices`, `gold` (its number); HellaSwag's `ctx`, `endings`, `label` mean the same |
| choice of contexts | `context_options`, `continuation`, `gold` (Winogrande) |
| pair | `sentence_good`, `sentence_bad` (BLiMP) |
| cloze | `context`, `continuation` |
| exact match | `context`, `answer` |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shoestring.errors import FileError, shown

Form = Literal["choice", "cloze", "exact"]


@dataclass(frozen=True, slots=True)
class MultipleChoice:
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


Row = MultipleChoice | Cloze | Exact


def read_rows(path: Path | str, limit: int | None = None) -> list[Row]:
    """The rows of a task file, all of one form.

    Args:
        limit: the first so many.

    Raises:
        FileError: names the file, the line, and what is wrong with it.
    """
    from shoestring.data import records

    rows: list[Row] = []
    for where, record in records(path):
        if limit is not None and len(rows) >= limit:
            break
        rows.append(_row(record, where))
        if type(rows[-1]) is not type(rows[0]):
            raise FileError(f"{where}: another form of task than the first row; put each form in a file of its own")
    if not rows:
        raise FileError(
            f"{path}: holds no rows; a task is a file of JSON lines, JSON, CSV or Parquet with a row for each question"
        )
    return rows


def task_name(path: Path | str) -> str:
    """A task's name: the file's, without endings."""
    return Path(path).name.split(".")[0]


def _row(record: dict[str, Any], where: str) -> Row:
    keys = record.keys()
    if keys >= {"query", "choices", "gold"}:
        return _choice(record, "query", "choices", "gold", where)
    if keys >= {"ctx", "endings", "label"}:
        return _choice(record, "ctx", "endings", "label", where)
    if keys >= {"context_options", "continuation", "gold"}:
        contexts, continuation = _strings(record, "context_options", where), _string(record, "continuation", where)
        options = tuple((context, joined(context, continuation)) for context in contexts)
        return MultipleChoice(options, _gold(record, "gold", len(options), where))
    if keys >= {"sentence_good", "sentence_bad"}:
        return MultipleChoice((("", _string(record, "sentence_good", where)), ("", _string(record, "sentence_bad", where))), 0)
    if keys >= {"context", "continuation"}:
        context = _string(record, "context", where, may_be_empty=True)
        return Cloze(context, joined(context, _string(record, "continuation", where)))
    if keys >= {"context", "answer"}:
        return Exact(_string(record, "context", where), _string(record, "answer", where))
    found = shown(", ".join(sorted(keys)), quote=False)
    raise FileError(
        f"{where}: no known form of task; needs query, choices, gold | context, continuation | context, answer; has {found}"
    )


def joined(context: str, continuation: str) -> str:
    """A continuation with the space that stands between it and its context, where one is missing."""
    bare = not context or context[-1].isspace() or continuation[:1].isspace()
    return continuation if bare else f" {continuation}"


def _choice(record: dict[str, Any], query: str, choices: str, gold: str, where: str) -> MultipleChoice:
    context = _string(record, query, where, may_be_empty=True)
    options = tuple((context, joined(context, text)) for text in _strings(record, choices, where))
    return MultipleChoice(options, _gold(record, gold, len(options), where))


def _string(record: dict[str, Any], key: str, where: str, may_be_empty: bool = False) -> str:
    value: str = record[key]
    if not _is_text(value, may_be_empty):
        raise FileError(f"{where}: {key} must be {'a' if may_be_empty else 'a non-empty'} string, got {shown(value)}")
    return value


def _strings(record: dict[str, Any], key: str, where: str) -> list[str]:
    value: list[str] = record[key]
    if not isinstance(value, list) or len(value) < 2 or not all(map(_is_text, value)):
        raise FileError(f"{where}: {key} must be a list of at least two non-empty strings, got {shown(value)}")
    return value


def _gold(record: dict[str, Any], key: str, count: int, where: str) -> int:
    """The number of the right choice; a whole number written as a text ("2"), as exports of HellaSwag have it, is one."""
    value = record[key]
    as_text = isinstance(value, str) and len(value) < 10 and value.isascii() and value.isdecimal()
    # A column of Parquet with nulls is one of floats.
    number = int(value) if as_text or (isinstance(value, float) and value.is_integer()) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
        raise FileError(f"{where}: {key} must be the number of a choice, 0 to {count - 1}, got {shown(value)}")
    return number


def _is_text(value: Any, may_be_empty: bool = False) -> bool:
    """Whether it is a text that UTF-8 can hold: JSON can name lone surrogates."""
    return isinstance(value, str) and bool(value or may_be_empty) and not any("\ud800" <= c <= "\udfff" for c in value)
