"""Text to tokens: train a byte-level BPE tokenizer (or take one), encode every document, hold some documents out.

Byte pair encoding (Sennrich et al., arXiv 1508.07909) starts from the 256 bytes and makes the most frequent pair of neighbours
one new entry, again and again, until the vocabulary is full; a text is encoded by the same merges in the same order. So any
text can be written, and frequent words are one token: fewer tokens to compute for the same text. Training is done by
`rustbpe`. A document is held out by the hash of its id alone, so the split does not change with order, seed, or what else is
in the corpus.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from shoestring import artifact
from shoestring.data import corpus, cost, documents, scores
from shoestring.data.tokens import DOCUMENTS, SIDES, Writer
from shoestring.errors import SettingError
from shoestring.measure import Hardware
from shoestring.progress import Progress
from shoestring.technique import Outside, Prediction, Sketch, State, Task, Technique, Watch, need

if TYPE_CHECKING:
    from shoestring.tokenizer import Tokenizer

PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
"""Where text is cut before pairs are merged: GPT-4's pattern, with numbers in pairs of digits, which suits small vocabularies."""
END = "<|endoftext|>"
GIVEN_VOCABULARY = 49152
"""Assumed of a tokenizer that is not trained here, until it is known."""
CHUNK = 1 << 22
"""Characters encoded at a time."""


def train_bpe(texts: Iterator[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer with `vocabulary` entries, the last of which ends a document.

    Raises:
        SettingError: fewer than 257 entries, or a text too small for that many.
    """
    import rustbpe

    from shoestring.tokenizer import Tokenizer

    if vocabulary < 257:
        raise SettingError(f"tokenize.vocabulary: {vocabulary} is less than 256 bytes and an end; give at least 257")
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(texts, vocab_size=vocabulary - 1, pattern=PATTERN)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) < vocabulary - 1:
        largest = len(ranks) + 1
        raise SettingError(
            f"tokenize.vocabulary: the text yields only {largest} entries, got {vocabulary}; give at most {largest}"
        )
    return Tokenizer.from_ranks(ranks, PATTERN, special=[END])


def heldout_ids(ids: list[str], share: float) -> set[str]:
    """The documents to hold out: those whose key is below `share`; always at least one, and never all.

    Raises:
        SettingError: one document (or the parts of one) can't be divided.
    """
    if share == 0:
        return set()
    keys = {id_: corpus.key(id_) for id_ in ids}
    lowest, highest = min(keys.values(), default=0.0), max(keys.values(), default=0.0)
    if lowest == highest:
        raise SettingError("tokenize.heldout: the corpus is one document, which is never cut; add documents or set heldout to 0")
    return {id_ for id_, key in keys.items() if key == lowest or (key < share and key != highest)}


class Tokenize(Technique):
    """Trains a byte-level BPE tokenizer (or takes one), and turns the corpus into training and held-out tokens."""

    name: ClassVar[str] = "tokenize"
    room: ClassVar[str] = "data"
    row: ClassVar[str] = "D8"
    paper: ClassVar[str] = "1508.07909"
    saves: ClassVar[tuple[str, ...]] = ("computation", "memory")
    reads: ClassVar[tuple[str, ...]] = ("corpus",)
    uses: ClassVar[tuple[str, ...]] = ("checkpoint", "scores")
    gives: ClassVar[str] = "tokens"
    version: ClassVar[int] = 3

    vocabulary: int = Field(default=4096, ge=257, le=1 << 20)
    """Entries of a tokenizer that is trained here."""
    heldout: float = Field(default=0.05, ge=0.0, le=0.5)
    """Share of documents that are held out for evaluation."""
    tokenizer: Annotated[str, Outside(("train", "checkpoint"))] = "train"
    """"train", "checkpoint" (that of the model so far), or the path of a tokenizer.json or its folder."""
    sample: float = Field(default=100.0, gt=0.0)
    """MB of training text that the tokenizer is trained on, at most."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Time from bytes; tokens from bytes per token by size of vocabulary."""
        size = sketch.text_bytes or 0.0
        trains = self.tokenizer == "train"
        given = getattr(sketch.model, "vocabulary", None) if self.tokenizer == "checkpoint" else None
        vocabulary = self.vocabulary if trains else given or GIVEN_VOCABULARY
        usage = cost.tokenizing(size, min(size, self.sample * 1e6) if trains else 0.0, hardware)
        tokens = size / cost.bytes_per_token(vocabulary) + (sketch.documents or 0.0)
        known = {"tokens": tokens * (1 - self.heldout), "heldout_tokens": tokens * self.heldout}
        return Prediction(usage, sketch.with_(vocabulary=vocabulary, **known))

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Divide the documents, make or open the tokenizer, encode."""
        source = need(state, "corpus", self.name)
        ids = [id_ for batch in documents.read(source, ("id",)) for id_ in batch.column("id").to_pylist()]
        held = heldout_ids(ids, self.heldout)
        tokenizer = self._tokenizer(state, watch, source, held)
        record: dict[str, Any] = {}
        with artifact.writing(task.out, "tokens", record) as folder:
            total = documents.about(source)["bytes"]
            record |= encode(source, folder, tokenizer, held, watch.progress, total, state.get("scores"))
            tokenizer.save(folder)
        watch.note(
            f"tokenize: {record['train_tokens']:,} training and {record['heldout_tokens']:,} held-out tokens, "
            f"vocabulary {tokenizer.vocabulary:,}, {record['train_bytes'] / max(record['train_tokens'], 1):.2f} bytes a token"
        )
        return {**state, "tokens": task.out}

    def _tokenizer(self, state: State, watch: Watch, source: Path, held: set[str]) -> Tokenizer:
        from shoestring.tokenizer import Tokenizer

        if self.tokenizer == "checkpoint":
            return Tokenizer.open(need(state, "checkpoint", "tokenize.tokenizer"))
        if self.tokenizer != "train":
            return Tokenizer.open(Path(self.tokenizer))
        watch.progress(f"tokenize: training a vocabulary of {self.vocabulary:,}")
        return train_bpe(_training_texts(source, held, int(self.sample * 1e6)), self.vocabulary)


def encode(
    source: Path, folder: Path, tokenizer: Tokenizer, held: set[str], progress: Progress, total: int, given: Path | None = None
) -> dict[str, Any]:
    """Write both sides of a tokens artifact; returns its `about`. Memory: one chunk of text and its tokens.

    Each document begins with what its tokenizer puts before a text.

    Args:
        total: bytes of text, for the progress.
        given: scores; those that are numbers are written beside the documents.
    """
    found = _scores(source, given)
    fixed = [("id", pa.string()), ("source", pa.string()), ("side", pa.string()), ("start", pa.int64()), ("length", pa.int64())]
    schema = pa.schema([*fixed, *((f"scores.{name}", pa.float64()) for name in found)])
    place = 0
    prefix = list(tokenizer.prefix)
    dtype = np.dtype("<u2" if tokenizer.vocabulary <= 1 << 16 else "<u4")
    with (
        closing(Writer(folder, "train", dtype, tokenizer.end)) as train,
        closing(Writer(folder, "heldout", dtype, tokenizer.end)) as heldout,
        pq.ParquetWriter(folder / DOCUMENTS, schema, compression="zstd") as index,
    ):
        for ids, texts, sources in _chunks(source):
            for writer, wanted in ((train, False), (heldout, True)):
                rows = [row for row, id_ in enumerate(ids) if (id_ in held) == wanted]
                mine = [texts[row] for row in rows]
                encoded = tokenizer.encode_batch(mine) if mine else []
                starts, lengths = writer.add((prefix + tokens for tokens in encoded), (len(text.encode()) for text in mine))
                known = [[column[row] for row in rows] for column in (ids, sources)]
                scored = [values[place : place + len(ids)][rows] for values in found.values()]
                columns = [*known, [writer.side] * len(rows), starts, lengths, *scored]
                index.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema)], schema=schema))
            place += len(ids)
            done = train.bytes + heldout.bytes
            progress(f"tokenize: {done / 1e6:.1f} of {total / 1e6:.1f} MB", min(1.0, done / max(1, total)))
    about: dict[str, Any] = {"dtype": dtype.name, "vocabulary": tokenizer.vocabulary, "prefix": prefix}
    for side, writer in zip(SIDES, (train, heldout), strict=True):
        about |= {
            f"{side}_tokens": writer.offsets[-1],
            f"{side}_bytes": writer.bytes,
            f"{side}_documents": len(writer.offsets) - 1,
        }
    facts = {"tokens": about["train_tokens"], "heldout_tokens": about["heldout_tokens"], "vocabulary": tokenizer.vocabulary}
    return about | {"facts": facts}


def _scores(source: Path, given: Path | None) -> dict[str, np.ndarray]:
    """Each score that is a number, for the documents in order; NaN where one has none."""
    if given is None:
        return {}
    ids = [id_ for batch in documents.read(source, ("id",)) for id_ in batch.column("id").to_pylist()]
    return {name: scores.values(given, name, ids, every=False) for name in scores.numbers(given)}


def _chunks(source: Path) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Ids, texts and sources in order, about `CHUNK` characters at a time."""
    rows: list[tuple[str, str, str]] = []
    size = 0
    for batch in documents.read(source):
        for row in zip(*(batch.column(name).to_pylist() for name in ("id", "text", "source")), strict=True):
            rows.append(row)
            size += len(row[1])
            if size >= CHUNK:
                yield _columns(rows)
                rows, size = [], 0
    if rows:
        yield _columns(rows)


def _columns(rows: list[tuple[str, str, str]]) -> tuple[list[str], list[str], list[str]]:
    ids, texts, sources = map(list, zip(*rows, strict=True))
    return ids, texts, sources


def _training_texts(source: Path, held: set[str], limit: int) -> Iterator[str]:
    """Texts that are not held out, until `limit` characters are reached."""
    left = limit
    for ids, texts, _ in _chunks(source):
        for text in itertools.compress(texts, (id_ not in held for id_ in ids)):
            yield text[:left]
            left -= len(text)
            if left <= 0:
                return
