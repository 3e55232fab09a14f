"""Text in: files of the user's own, or the embedded default, as one corpus artifact with its provenance.

Every document gets a unique id and its place in the order; a content hash (SHA-256 over ids and texts) says which text it was.
Documents of white space alone are left out. A `limit` keeps the documents whose ids have the smallest hashes: an even sample
that no order of files bends, and that only grows when the limit does. The default, "python-stdlib", is the standard library of
the running Python: its source as "code", its docstrings as "prose", some 13 MB without a download.
"""

from __future__ import annotations

import hashlib
import heapq
import platform
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from shoestring import artifact
from shoestring.data import cost, documents, kinds, readers, stdlib
from shoestring.data.readers import Document
from shoestring.errors import FileError
from shoestring.measure import Hardware
from shoestring.technique import Outside, Prediction, Sketch, State, Task, Technique, Watch, Word


def read(
    source: str | tuple[str, ...],
    sources: tuple[str, ...] | None,
    limit: int | None,
    drops: Counter[str],
    field: str = readers.TEXT,
    left_out: Counter[str] | None = None,
) -> Iterator[Document]:
    """The documents of a corpus in order, ids made unique.

    Args:
        source: "python-stdlib", or one or several paths.
        sources: keep only documents of these sources.
        limit: keep this many, those with the smallest hash of the id: an even sample that no order of files bends.
        drops: counts documents that are left out, by reason.
        field: the field of rows that holds the text.
        left_out: counts files of folders that are not read, by ending and reason.

    Raises:
        FileError: missing, unreadable or empty files, or no document of the wanted sources.
    """
    given = (source,) if isinstance(source, str) else source
    found = _unique(
        d
        for name in given
        for d in (stdlib.read() if name == stdlib.NAME else readers.read(name, field=field, left_out=left_out))
    )
    seen: set[str] = set()

    def wanted() -> Iterator[Document]:
        for document in found:
            seen.add(document.source)
            if not document.text.strip():
                drops["empty"] += 1
            elif sources is not None and document.source not in sources:
                drops["source not wanted"] += 1
            else:
                yield document

    yield from wanted() if limit is None else _sample(wanted(), limit, drops)
    missing = sorted(set(sources or ()) - seen)
    if missing:
        raise FileError(f"{', '.join(given)}: no document of source {', '.join(missing)}; it has: {', '.join(sorted(seen))}")


def key(id_: str) -> float:
    """A uniform number in [0, 1) that depends on a document's id alone; parts (`name::part`) share that of `name`."""
    digest = hashlib.blake2b(id_.partition("::")[0].encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little") / 2**64


def batches(found: Iterable[Document], digest: Any) -> Iterator[pa.RecordBatch]:
    """Documents as Arrow batches of the corpus' schema; `digest` (of hashlib) sees every id and text."""
    rows: list[tuple[str, int, str, str, str | None]] = []
    size = 0
    for order, document in enumerate(found):
        for part in (document.id, document.text):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        size += len(document.text)
        rows.append((document.id, order, document.text, document.source, document.metadata))
        # The second limit keeps a batch below the 2 GiB that Arrow's string columns hold.
        if len(rows) == documents.ROWS or size > 1 << 28:
            yield _batch(rows)
            rows, size = [], 0
    if rows:
        yield _batch(rows)


Source = Annotated[str, Outside((stdlib.NAME,))]
"""A path, or the name of the embedded text."""


class Corpus(Technique):
    """Reads text, JSON, CSV, Parquet or folders of them, or the embedded Python standard library, as a corpus."""

    name: ClassVar[str] = "corpus"
    version: ClassVar[int] = 2
    room: ClassVar[str] = "data"
    row: ClassVar[str] = ""
    gives: ClassVar[str] = "corpus"

    source: Source | tuple[Source, ...] = stdlib.NAME
    """"python-stdlib" or a path, or several."""
    sources: tuple[Word, ...] | None = None
    """Keep only documents of these sources, such as ["prose"]; null keeps all."""
    field: Word = readers.TEXT
    """The field (column) of rows in JSON, CSV or Parquet that holds the text."""
    limit: int | None = Field(default=None, gt=0)
    """Keep at most this many documents, an even sample."""

    def outside(self) -> str:
        """The contents of the files; for the embedded corpus the version of Python, whose library it is."""
        given = (self.source,) if isinstance(self.source, str) else self.source
        return super().outside() + (platform.python_version() if stdlib.NAME in given else "")

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """From file sizes; the embedded corpus' size is known."""
        given = (self.source,) if isinstance(self.source, str) else self.source
        found = [cost.stdlib_text(self.sources) if name == stdlib.NAME else cost.files_text(readers.size(name)) for name in given]
        size, count = sum(f[0] for f in found), sum(f[1] for f in found)
        kept = min(1.0, self.limit / count) if self.limit and count else 1.0
        usage = cost.step_usage("corpus", size, hardware, given.count(stdlib.NAME))
        return Prediction(usage, sketch.with_(text_bytes=size * kept, documents=count * kept))

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Read, write, record where it came from."""
        record: dict[str, Any] = {}
        digest, drops, left_out = hashlib.sha256(), Counter[str](), Counter[str]()
        watch.progress(f"corpus: reading {self.source}")
        with artifact.writing(task.out, "corpus", record) as folder:
            found = read(self.source, self.sources, self.limit, drops, self.field, left_out)
            totals = documents.write(batches(found, digest), folder / documents.FILE)
            if not totals.sources:
                raise FileError(f"{self.source}: holds no text; name a file or folder with some")
            origin = {"source": self.source, "sha256": digest.hexdigest(), "python": platform.python_version()}
            record |= totals.about() | {"drops": dict(sorted(drops.items())), "origin": origin}
            record["files_left_out"] = dict(sorted(left_out.items()))
        if left_out:
            watch.note(kinds.left_out_note(self.name, left_out))
        watch.note(f"corpus: {record['documents']:,} documents, {record['bytes'] / 1e6:.2f} MB of {_listed(record['sources'])}")
        return {**state, "corpus": task.out}


def _sample(found: Iterator[Document], limit: int, drops: Counter[str]) -> Iterator[Document]:
    """The `limit` documents with the smallest key, in their order; holds only those in memory."""
    heap: list[tuple[float, int, Document]] = []
    for order, document in enumerate(found):
        entry = (-key(document.id), -order, document)
        if len(heap) < limit:
            heapq.heappush(heap, entry)
        else:
            drops["beyond the limit"] += 1
            heapq.heappushpop(heap, entry)
    for _, _, document in sorted(heap, key=lambda entry: -entry[1]):
        yield document


def _unique(found: Iterator[Document]) -> Iterator[Document]:
    """Ids that came before (two folders with one file name) get a number."""
    seen: dict[str, int] = {}
    for document in found:
        count = seen[document.id] = seen.get(document.id, 0) + 1
        name, mark, part = document.id.partition("::")
        yield document if count == 1 else document._replace(id=f"{name}~{count}{mark}{part}")


def _batch(rows: list[tuple[str, int, str, str, str | None]]) -> pa.RecordBatch:
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), documents.SCHEMA)]
    return pa.RecordBatch.from_arrays(columns, schema=documents.SCHEMA)


def _listed(names: Collection[str], most: int = 6) -> str:
    """The first few names, and how many there are when there are more."""
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{len(names)} sources ({shown}, ...)"
