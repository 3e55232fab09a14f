"""The one place where Daft is bound: pure functions over Arrow arrays become columns, tables come back in a fixed order.

The library never chooses Daft's runner: a program that wants a Ray cluster calls `daft.set_runner_ray()` before. Because every
result is sorted by an order column, both runners give the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

# Read by Daft when it is imported: no telemetry, no bars of its own beside our progress line.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
os.environ.setdefault("DAFT_PROGRESS_BAR", "0")

import daft
from daft import col


def read(files: Path | Sequence[Path]) -> Any:
    """A lazy table of Parquet files."""
    paths = [files] if isinstance(files, Path) else files
    return daft.read_parquet([_literal(path) for path in paths])


def _literal(path: Path) -> str:
    """A path for Daft, which reads relative ones as addresses and all of them as patterns."""
    return re.sub(r"[\[\]{}*?\\]", r"\\\g<0>", str(path.absolute()))


def column(function: Callable[..., pa.Array], inputs: Sequence[Any], type_: pa.DataType) -> Any:
    """A column made by a pure function over Arrow arrays, one batch of rows at a time.

    Args:
        function: from Arrow arrays of equal length to one of that length; row by row, so that batches do not matter.
        inputs: column names or expressions.
        type_: what it gives.
    """

    def of_batch(*series: Any) -> Any:
        return daft.Series.from_arrow(function(*(_plain(s.to_arrow()) for s in series)))

    bound = daft.func.batch(return_dtype=daft.DataType.from_arrow_type(type_), use_process=False)(of_batch)
    return bound(*(col(item) if isinstance(item, str) else item for item in inputs))


def normalised(text: str = "text") -> Any:
    """The text with every run of white space as one space, none at the ends."""
    return col(text).regexp_replace(r"\s+", " ").strip()


UNSPACED = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"),
    *("Javanese", "Balinese", "Tai_Tham", "Tai_Le", "New_Tai_Lue", "Tai_Viet"),
)
"""Scripts that put no spaces between words."""


def spaced(units: str, text: str = "text") -> Any:
    """The text as units with one space between: words; of unspaced scripts, or of all, each character."""
    single = {"auto": "[" + "".join(rf"\p{{{script}}}" for script in UNSPACED) + "]", "characters": r"\S"}.get(units)
    divided = col(text) if single is None else col(text).regexp_replace(f"({single})", " ${1} ")
    return divided.regexp_replace(r"\s+", " ").strip()


def longer(text: Any, count: int) -> Any:
    """Whether a spaced text has more than `count` units."""
    return text.regexp(rf"^(?:\S+ ){{{count}}}\S")


def unit_hashes(text: Any) -> Any:
    """A 64-bit hash of each unit of a spaced text, a list column."""
    return text.split(" ").list_map(daft.element().hash(hash_function="xxhash3_64"))


def hashed(text: Any, seed: int) -> Any:
    """A 64-bit hash of a text."""
    return text.hash(seed=seed, hash_function="xxhash3_64")


def length(text: str = "text") -> Any:
    """Bytes of UTF-8."""
    return col(text).length_bytes()


def only(table: Any, key: str, values: np.ndarray) -> Any:
    """The rows whose `key` (int64) is among `values`."""
    wanted = daft.from_arrow(pa.table({key: pa.array(np.asarray(values, dtype=np.int64))}))
    return table.join(wanted, on=key, how="semi")


def among(table: Any, key: str, values: Sequence[str]) -> Any:
    """The rows whose `key` (text) is one of a few values."""
    return table.where(col(key).is_in(list(values)))


def ordered(table: Any, key: str = "order") -> pa.Table:
    """The whole table in memory, sorted."""
    found: pa.Table = table.sort(key).to_arrow()
    return found


def _plain(array: pa.Array) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
