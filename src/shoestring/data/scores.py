"""Scores: what any room says of documents in numbers; `select` and the orders of training read them.

A scores artifact holds `scores/<name>.parquet` for each score, with a row a document: `id` as in the corpus, `value` (a number,
or a list of float32 for an embedding). Each step that scores hands on the scores of the steps before it. Ids stay the same
from corpus to tokens, so that a score made before a filter, or with another tokenizer, still finds its document.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shoestring import artifact
from shoestring.errors import FileError, nearest, shown
from shoestring.technique import State, Task

FOLDER = "scores"
NUMBER, EMBEDDING = pa.float64(), pa.list_(pa.float32())
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def write(
    state: State,
    task: Task,
    name: str,
    values: Iterable[tuple[list[str], list[Any]]],
    type_: pa.DataType = NUMBER,
    **about: Any,
) -> State:
    """Make an artifact of the scores so far and a new one, which replaces one of its name.

    Args:
        values: ids and their values, some documents at a time: no more is in memory.
        type_: `NUMBER` or `EMBEDDING`.
        about: how it was made.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"a score's name is lower case letters, digits and _, got {name!r}")
    there = state.get("scores")
    earlier = {} if there is None else {key: there / FOLDER / f"{key}.parquet" for key in names(there)}
    known: dict[str, Any] = {} if there is None else artifact.manifest(there).about["scores"]
    schema = pa.schema([("id", pa.string()), ("value", type_)])
    with artifact.writing(task.out, "scores", {"scores": {**known, name: about}}) as folder:
        (folder / FOLDER).mkdir()
        for key, file in earlier.items():
            if key != name:
                shutil.copyfile(file, folder / FOLDER / file.name)
        with pq.ParquetWriter(folder / FOLDER / f"{name}.parquet", schema, compression="zstd") as writer:
            for ids, found in values:
                writer.write_table(pa.table([pa.array(ids, pa.string()), pa.array(found, type_)], schema=schema))
    return {**state, "scores": task.out}


def names(scores: Path) -> list[str]:
    """The names of an artifact's scores.

    Raises:
        FileError: it is not an artifact of scores.
    """
    found = artifact.manifest(scores)
    if found.kind != "scores":
        raise FileError(f"{scores}: holds {found.kind}, not scores; name an artifact of scores")
    return sorted(Path(file).stem for file in found.files)


def numbers(scores: Path) -> list[str]:
    """The names of those scores that are one number a document."""
    return [name for name in names(scores) if pq.read_schema(_file(scores, name)).field("value").type == NUMBER]


def read(scores: Path, name: str) -> Iterator[pa.RecordBatch]:
    """One score's `id` and `value`, in batches.

    Raises:
        FileError: there is no such score; the nearest name is given.
    """
    with pq.ParquetFile(_file(scores, name)) as opened:
        yield from opened.iter_batches(batch_size=1024)


def values(scores: Path, name: str, ids: Iterable[str], every: bool = True) -> np.ndarray:
    """A score of some documents in their order: float64 (N,), or float32 (N, D) for an embedding.

    Memory: what is asked for, and the ids; never what other documents have.

    Args:
        every: refuse a document without the score; else it is NaN.

    Raises:
        FileError: there is no such score, or a document lacks it.
    """
    wanted = list(ids)
    rows = {id_: row for row, id_ in enumerate(wanted)}
    found = np.full(len(wanted), np.nan)
    for batch in read(scores, name):
        here = [(rows[id_], place) for place, id_ in enumerate(batch.column("id").to_pylist()) if id_ in rows]
        if not here:
            continue
        into, places = np.array(here).T
        column = batch.column("value").take(pa.array(places))
        if column.type == NUMBER:
            found[into] = column.to_numpy(zero_copy_only=False)
            continue
        lists = np.stack(column.to_pylist()).astype(np.float32)
        if found.ndim == 1:
            found = np.full((len(wanted), lists.shape[1]), np.nan, np.float32)
        found[into] = lists
    lacking = np.flatnonzero(np.isnan(found if found.ndim == 1 else found[:, 0]))
    if every and len(lacking):
        raise FileError(
            f"{scores}: {len(lacking):,} of {len(wanted):,} documents have no number as their score {name}, the first is "
            f"{shown(wanted[lacking[0]])}; score the corpus that is used here"
        )
    return found


def _file(scores: Path, name: str) -> Path:
    there = names(scores)
    if name not in there:
        raise FileError(f"{scores}: no score called {shown(name)}; {nearest(name, there)}")
    return Path(scores) / FOLDER / f"{name}.parquet"
