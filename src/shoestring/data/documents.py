"""A corpus on disk: `documents.parquet` with its drops, read and written in fixed order and fixed row groups.

Columns: `id` (unique), `order` (place in the original corpus, kept by every step), `text`, `source`, `metadata` (other
columns of the input, as JSON, or null). A part `name::something` of a document `name` shares its fate where documents are
divided (training and held-out text).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoestring import artifact
from shoestring.errors import FileError
from shoestring.technique import State, Task, Watch, need

FILE = "documents.parquet"
DROPS = "drops.parquet"
SAMPLE = 50
"""Rejects kept for a person to read, of each reason."""
ROWS = 1024
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("order", pa.int64()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("metadata", pa.string()),
    ]
)
DROPS_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "source", "reason", "detail", "text")])


class Drop(NamedTuple):
    """Why a document goes: a reason that is counted, and what helps a person to check it."""

    reason: str
    detail: str = ""


@dataclass(slots=True)
class Totals:
    """What was written: documents and bytes of UTF-8 text, in all and by source."""

    sources: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch with `text` and `source`."""
        table = pa.table({"source": batch.column("source"), "bytes": pc.binary_length(batch.column("text"))})
        for row in table.group_by("source").aggregate([("bytes", "sum"), ("bytes", "count")]).to_pylist():
            entry = self.sources.setdefault(row["source"], {"documents": 0, "bytes": 0})
            entry["documents"] += row["bytes_count"]
            entry["bytes"] += row["bytes_sum"]

    def about(self) -> dict[str, Any]:
        """The counts as an artifact's `about` holds them."""
        documents = sum(s["documents"] for s in self.sources.values())
        size = sum(s["bytes"] for s in self.sources.values())
        sources = {name: self.sources[name] for name in sorted(self.sources)}
        return {"documents": documents, "bytes": size, "sources": sources, "facts": {"documents": documents, "text_bytes": size}}


def write(batches: Iterable[pa.RecordBatch], file: Path, schema: pa.Schema = SCHEMA) -> Totals:
    """Write batches as one Parquet file in row groups of `ROWS` rows, however they come; count them."""
    totals = Totals()
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=["source"]) as writer:
        for group in _groups(batches, schema):
            writer.write_table(group, row_group_size=ROWS)
            for batch in group.select(["text", "source"]).to_batches():
                totals.add(batch)
    return totals


def parquet(corpus: Path) -> Path:
    """The documents of a corpus artifact, its manifest checked.

    Raises:
        FileError: it is not a corpus.
    """
    found = artifact.manifest(corpus)
    if found.kind != "corpus":
        raise FileError(f"{corpus}: holds {found.kind}, not a corpus; name a corpus artifact")
    return Path(corpus) / FILE


def about(corpus: Path) -> dict[str, Any]:
    """What a corpus artifact says of itself."""
    return artifact.manifest(corpus).about


def read(corpus: Path, columns: tuple[str, ...] = ("id", "text", "source")) -> Iterator[pa.RecordBatch]:
    """The documents of a corpus artifact in order, a row group at a time."""
    yield from rows(parquet(corpus), columns)


def rows(file: Path, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """The documents of a Parquet file in order, a row group at a time."""
    with pq.ParquetFile(file) as opened:
        for index in range(opened.num_row_groups):
            yield from opened.read_row_group(index, columns=list(columns)).to_batches()


def ids(file: Path, orders: set[int]) -> dict[int, str]:
    """The ids of some documents of a Parquet file, by order."""
    table = pq.read_table(file, columns=["id", "order"])
    table = table.filter(pc.is_in(table["order"], value_set=pa.array(sorted(orders), pa.int64())))
    return dict(zip(table["order"].to_pylist(), table["id"].to_pylist(), strict=True))


def keep(
    state: State, task: Task, watch: Watch, who: str, find: Callable[[Path], dict[int, Drop]], more: dict[str, Any] | None = None
) -> State:
    """The machinery of every step that drops documents: write those without a reason, count and sample the others.

    Args:
        who: the step's name, for messages.
        find: from the path of `documents.parquet` to the documents to drop, by `order`.
        more: further entries of the new artifact's `about`; `find` may fill it.

    Raises:
        FileError: every document would go.
    """
    corpus = need(state, "corpus", who)
    source = parquet(corpus)
    before = about(corpus)
    watch.progress(f"{who}: {before['documents']:,} documents, {before['bytes'] / 1e6:.1f} MB")
    dropped = find(source)
    record: dict[str, Any] = {}
    with artifact.writing(task.out, "corpus", record) as folder:
        totals = _without(source, folder / FILE, np.fromiter(dropped, np.int64, len(dropped)))
        if not totals.sources:
            counts = ", ".join(f"{reason}: {count}" for reason, count in _counts(dropped).items())
            raise FileError(f"{corpus}: {who} drops every document ({counts}); loosen its settings or leave sources out")
        _write_drops(source, dropped, folder / DROPS)
        record |= totals.about() | {"drops": _counts(dropped), "origin": before.get("origin", {})} | (more or {})
    lost = before["bytes"] - record["bytes"]
    watch.note(f"{who}: dropped {len(dropped):,} of {before['documents']:,} documents, {lost / 1e6:.2f} MB")
    return {**state, "corpus": task.out}


def _without(source: Path, target: Path, dropped: np.ndarray) -> Totals:
    """Copy `source` but for the documents whose order is in `dropped`, group by group: memory stays small."""
    gone = pa.array(np.sort(dropped))

    def kept() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(source) as opened:
            for batch in opened.iter_batches(batch_size=ROWS):
                yield batch.filter(pc.invert(pc.is_in(batch.column("order"), value_set=gone)))

    return write(kept(), target, pq.read_schema(source))


def _write_drops(source: Path, dropped: dict[int, Drop], target: Path) -> None:
    """A sample of at most `SAMPLE` rejects of each reason, evenly over the corpus, in its order."""
    by_reason: dict[str, list[int]] = {}
    for order in sorted(dropped):
        by_reason.setdefault(dropped[order].reason, []).append(order)
    picked = []
    for orders in by_reason.values():
        count = min(SAMPLE, len(orders))
        picked += [orders[i * len(orders) // count] for i in range(count)]
    chosen = pa.array(sorted(picked), pa.int64())

    def rejects() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(source) as opened:
            for batch in opened.iter_batches(batch_size=ROWS, columns=["id", "order", "source", "text"]):
                hit = batch.filter(pc.is_in(batch.column("order"), value_set=chosen))
                why = [dropped[order] for order in hit.column("order").to_pylist()]
                reasons = [pa.array([drop[part] for drop in why], pa.string()) for part in (0, 1)]
                columns = [hit.column("id"), hit.column("source"), *reasons, hit.column("text")]
                yield pa.RecordBatch.from_arrays(columns, schema=DROPS_SCHEMA)

    write(rejects(), target, DROPS_SCHEMA)


def _counts(dropped: dict[int, Drop]) -> dict[str, int]:
    return dict(sorted(Counter(drop.reason for drop in dropped.values()).items()))


def _groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `ROWS` rows, the last one shorter."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= ROWS:
            table = pa.Table.from_batches(waiting, schema)
            whole = rows - rows % ROWS
            for start in range(0, whole, ROWS):
                yield table.slice(start, ROWS).combine_chunks()
            waiting, rows = table.slice(whole).to_batches(), rows - whole
    if rows:
        yield pa.Table.from_batches(waiting, schema).combine_chunks()
