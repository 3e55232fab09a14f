"""What data steps will cost: a start and the bytes of text they go through, and what is assumed of a corpus before it is read.

Rates are wall-clock on two ordinary cores with text of some kilobytes a document (benchmarks/minhash.py and the measurements in
docs/data.md). Shares that stay are those of
the embedded corpus; they are corrected as soon as a step has run.
"""

from __future__ import annotations

import math

import numpy as np

from shoestring.measure import Hardware, Usage
from shoestring.measure.counts import Counts, Units, usage
from shoestring.technique import Prediction, Sketch

RATES = {"corpus": 40.0, "quality": 14.0, "exact": 60.0, "minhash": 20.0, "select": 100.0, "train_tokenizer": 9.0, "encode": 7.5}
"""MB of text per second of wall time."""
START = {"corpus": 0.3, "quality": 0.5, "exact": 0.4, "minhash": 0.6, "select": 0.3, "tokenize": 0.5}
"""Seconds that a step takes whatever the size: imports, files, threads."""
ASSUMED: Units = {
    **{f"data.{step}.text": 1e-6 / rate for step, rate in RATES.items()},
    **{f"data.{step}.starts": seconds for step, seconds in START.items()},
    "data.stdlib.starts": 3.0,
}
"""Seconds for a byte of text in each step, for its start, and to parse the standard library for its docstrings."""
KEPT = {"quality": (0.95, 0.77), "exact": (1.0, 0.998), "minhash": (0.97, 0.98), "select": (0.5, 0.5)}
"""Shares of bytes and of documents that stay. Assumed."""
STDLIB = {"code": (11.32e6, 725.0), "prose": (2.27e6, 723.0)}
"""Bytes and documents of the embedded corpus with Python 3.11."""
DOCUMENT = 4096.0
"""Bytes of a document of unknown text. Assumed."""
HELD = 3.0
"""Bytes of memory at the worst moment for each byte of text."""
BASE = 80e6
"""Bytes of memory that Arrow and Daft take while they work, measured; the process itself is not in it."""


def stdlib_text(sources: tuple[str, ...] | None) -> tuple[float, float]:
    """Bytes and documents of the embedded corpus."""
    wanted = [figures for name, figures in STDLIB.items() if sources is None or name in sources]
    return sum(w[0] for w in wanted), sum(w[1] for w in wanted)


def files_text(size: float) -> tuple[float, float]:
    """Bytes and documents to expect of files of a size."""
    return size, max(1.0, size / DOCUMENT)


def step_usage(step: str, size: float, hardware: Hardware, parsed: int = 0) -> Usage:
    """What a pass over `size` bytes of text takes, and parsing the standard library so many times."""
    counts = {f"data.{step}.starts": 1.0, f"data.{step}.text": size, "data.stdlib.starts": float(parsed)}
    return _usage(counts, BASE + HELD * min(size, 2e9), hardware)


def filtering(step: str, sketch: Sketch, hardware: Hardware, share: float | None = None) -> Prediction:
    """A step that drops documents: a pass over the text, and what stays of it (`share`, where the step is asked for one)."""
    size, count = sketch.text_bytes or 0.0, sketch.documents or 0.0
    share_bytes, share_documents = KEPT[step] if share is None else (share, share)
    return Prediction(
        step_usage(step, size, hardware), sketch.with_(text_bytes=size * share_bytes, documents=count * share_documents)
    )


def bytes_per_token(vocabulary: int) -> float:
    """Bytes of mixed code and prose that one token stands for, by size of vocabulary.

    Between measured points, in the logarithm of the vocabulary: BPE trained on the embedded corpus after filtering (12.5 MB).
    The point at 131,072 is assumed.
    """
    points = {256: 1.0, 1024: 2.57, 4096: 3.50, 16384: 4.17, 32768: 4.36, 131072: 4.6}
    return float(np.interp(math.log2(vocabulary), [math.log2(size) for size in points], list(points.values())))


def tokenizing(size: float, training: float, hardware: Hardware) -> Usage:
    """Training a tokenizer on `training` bytes (0 for a given one) and encoding `size` bytes."""
    counts = {"data.tokenize.starts": 1.0, "data.train_tokenizer.text": training, "data.encode.text": size}
    return _usage(counts, BASE + min(size, 1e9), hardware)


def _usage(counts: Counts, kept: float, hardware: Hardware) -> Usage:
    return usage(counts, kept, hardware, ASSUMED, method="a start, and bytes of text")
