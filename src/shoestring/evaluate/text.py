"""The text that a model is measured on: a file, held-out tokens, or the embedded default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from shoestring.errors import FileError
from shoestring.tokenizer import Tokenizer

CHARACTERS_PER_TOKEN = 16
"""More than a token holds on average in any text: how much of a long file is enough for so many tokens."""


def file_tokens(
    path: Path | str,
    tokenizer: Tokenizer,
    enough: int | None = None,
    field: str = "text",
    note: Callable[[str], None] | None = None,
) -> np.ndarray:
    """The tokens of a text file, or of the documents in rows or a folder, each of these closed by the end token.

    Line ends become "\\n", as when Python reads a text: figures then do not depend on the system a file was made on.

    Args:
        enough: stop reading where there are certainly more tokens than this; what comes before is the same.
        field: the field of rows in JSON, CSV or Parquet that holds the text.
        note: told which files of a folder were left out.

    Raises:
        FileError: missing, unreadable or empty.
    """
    from shoestring.data.readers import read_texts

    texts = [text.replace("\r\n", "\n").replace("\r", "\n") for text in read_texts(path, field, note)]
    if len(texts) == 1:
        return np.array(tokenizer.encode(_beginning(texts[0], enough)), dtype=np.int64)
    return closed(texts, tokenizer, enough)


def heldout_tokens(path: Path, tokenizer: Tokenizer) -> np.ndarray | None:
    """The held-out tokens of a tokens artifact, encoded anew when another tokenizer made them; None when there are too few.

    What its tokenizer puts before each document is left out: it belongs before each window instead.
    """
    from shoestring.data import open_tokens

    opened = open_tokens(path)
    if len(opened.heldout) < 2:
        return None
    theirs, starts = opened.tokenizer(), opened.heldout_offsets
    if same_tokenizer(theirs, tokenizer):
        return _without(opened.heldout, starts, len(opened.prefix))
    texts = [theirs.decode(opened.heldout[a:b].tolist()) for a, b in pairwise(starts)]
    return closed(texts, tokenizer)


def embedded_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """The topics of Python's help, which every Python carries: 0.7 MB of prose about the language.

    Raises:
        FileError: this Python came without them.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise FileError("evaluate: this Python lacks pydoc_data, the default text; give text: a file of your own") from error
    return closed([str(topics[name]) for name in sorted(topics)], tokenizer)


def same_tokenizer(first: Tokenizer, second: Tokenizer) -> bool:
    """Whether two tokenizers give a text the same ids: vocabulary, merges and how a text is cut are equal."""

    def essence(tokenizer: Tokenizer) -> tuple[object, ...]:
        model = tokenizer.record["model"]
        added = sorted((token["id"], token["content"]) for token in tokenizer.record.get("added_tokens") or [])
        merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model.get("merges") or []]
        cutting = (tokenizer.record.get("normalizer"), tokenizer.record.get("pre_tokenizer"))
        return model["vocab"], merges, cutting, added, tokenizer.end

    return first is second or essence(first) == essence(second)


def _without(stream: np.ndarray, starts: np.ndarray, prefix: int) -> np.ndarray:
    """A stream of documents without the first `prefix` tokens of each."""
    if prefix == 0:
        return stream
    return np.delete(stream, (starts[:-1, None] + np.arange(prefix)).ravel())


def closed(texts: Sequence[str], tokenizer: Tokenizer, enough: int | None = None, at_once: int = 256) -> np.ndarray:
    """Documents' tokens one after the other, each closed by the end token, int64.

    Args:
        enough: stop where there are so many tokens; looked at after every `at_once` documents.
    """
    found: list[int] = []
    for begin in range(0, len(texts), at_once):
        for tokens in tokenizer.encode_batch(texts[begin : begin + at_once]):
            found += [*tokens, tokenizer.end]
        if enough is not None and len(found) >= enough:
            break
    return np.array(found, dtype=np.int64)


def _beginning(text: str, tokens: int | None) -> str:
    """The text up to a line end behind which a token surely begins: before a character that isn't blank."""
    if tokens is None or len(text) <= tokens * CHARACTERS_PER_TOKEN:
        return text
    at = tokens * CHARACTERS_PER_TOKEN
    while (at := text.find("\n", at) + 1) > 0:
        if at < len(text) and not text[at].isspace():
            return text[:at]
    return text
