"""Which tokens a model is calibrated with: whole windows drawn from the training tokens or from a text, by the seed.

N windows, T tokens of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from shoestring.errors import SettingError

if TYPE_CHECKING:
    from shoestring.tokenizer import Tokenizer

ENOUGH = 8
"""A text is encoded until there are this many times the tokens asked for: windows are drawn from all over that."""


def calibration_tokens(tokenizer: Tokenizer, text: str | Path, samples: int = 16, length: int = 256, seed: int = 0) -> Tensor:
    """Calibration for a technique's `apply_to`: windows drawn from all over a text, int64 (samples, length).

    Args:
        tokenizer: the model's.
        text: the text itself, or the `Path` of a text, JSONL or Parquet file, or of a folder of these.

    Raises:
        SettingError: the text has too few tokens for that many windows of that length.
    """
    if samples < 1 or length < 1:
        raise SettingError(f"calibration: samples and length must be at least 1, got {samples} and {length}")
    stream = _encoded(_documents(text), tokenizer, samples * length * ENOUGH)
    found = len(stream) // length
    if found < samples:
        advice = f"give more text, or samples={found}" if found else "give more text, or a smaller length"
        raise SettingError(
            f"calibration: the text has {len(stream):,} tokens, {found} windows of {length}; {samples} are asked for: {advice}"
        )
    return windows(stream, samples, length, seed, tokenizer.prefix)


def draw(
    tokenizer: Tokenizer,
    samples: int,
    length: int,
    seed: int,
    who: str,
    text: Path | None = None,
    tokens: Path | None = None,
    note: Callable[[str], None] = print,
) -> Tensor:
    """Calibration windows, int64 (N, T), each beginning with what the tokenizer puts before a text.

    Args:
        tokenizer: the model's.
        who: the technique, for errors and notes.
        text: where to draw from; else from the training side of the tokens artifact `tokens`.

    Raises:
        SettingError: neither is given, the tokens are another tokenizer's, or there are too few for one window.
    """
    if text is not None:
        stream = _encoded(_documents(text, note), tokenizer, samples * length * ENOUGH)
        source = str(text)
    elif tokens is not None:
        from shoestring.data import open_tokens
        from shoestring.evaluate.text import same_tokenizer

        opened = open_tokens(tokens)
        if not same_tokenizer(opened.tokenizer(), tokenizer):
            raise SettingError(
                f"{who}: the recipe's tokens were made by another tokenizer than the model's; tokenize with "
                "`tokenizer: checkpoint`, or name a text with `calibration`"
            )
        stream, source = opened.train, "the training tokens"
    else:
        raise SettingError(f"{who}.calibration: must be given, since no step before it makes tokens; name a text file")
    found = len(stream) // length
    if found == 0:
        raise SettingError(f"{who}.length: {length} tokens are more than {source} has ({len(stream)}); set a smaller length")
    if found < samples:
        note(f"{who}: {source} has {found} windows of {length} tokens, fewer than the {samples} asked for; all are used")
    return windows(stream, samples, length, seed, tokenizer.prefix)


def windows(stream: np.ndarray, samples: int, length: int, seed: int, prefix: Sequence[int] = ()) -> Tensor:
    """Windows of a stream that do not overlap, drawn without replacement and kept in the stream's order, int64 (N, T).

    Args:
        prefix: what each window begins with; where it is not there already, the window's last tokens make room for it.
    """
    found = len(stream) // length
    chosen = np.sort(np.random.default_rng(seed).choice(found, size=min(samples, found), replace=False))
    drawn_NT = np.stack([stream[i * length : (i + 1) * length] for i in chosen]).astype(np.int64)
    size = min(len(prefix), length)
    lacking_N = (drawn_NT[:, :size] != np.array(prefix[:size], dtype=np.int64)).any(axis=1)
    drawn_NT[lacking_N, size:] = drawn_NT[lacking_N, : length - size]
    drawn_NT[lacking_N, :size] = prefix[:size]
    return torch.from_numpy(drawn_NT)


def _documents(text: str | Path, note: Callable[[str], None] | None = None) -> Sequence[str]:
    from shoestring.data import read_texts

    return [text] if isinstance(text, str) else read_texts(text, note=note)


def _encoded(texts: Sequence[str], tokenizer: Tokenizer, enough: int) -> np.ndarray:
    """The tokens of one text, or of documents, each closed by the end token, until there are enough."""
    from shoestring.evaluate.text import CHARACTERS_PER_TOKEN, closed

    # A long text is cut where there is certainly enough of it.
    parts = [text[: enough * CHARACTERS_PER_TOKEN] for text in texts]
    return np.array(tokenizer.encode(parts[0]), dtype=np.int64) if len(parts) == 1 else closed(parts, tokenizer, enough, 1)
