"""Bits per byte and perplexity over non-overlapping windows of joined tokens.

Each window is scored on its own. Where the tokenizer puts something before every text (its `prefix`, usually BOS), it stands
before each window, and all the window's tokens are predicted from what is before them; otherwise the window's first token is
context only. With L the summed loss in nats of the scored tokens, N their number, U the UTF-8 bytes they stand for:

    perplexity = exp(L / N);    bits per byte = L / (U ln 2)

Bits per byte compares models whose tokenizers differ. The standard error is that of a ratio of sums over windows
(Cochran, Sampling Techniques, section 2.11): sqrt(n / (n - 1) * sum (l_i - R u_i)^2) / U for R = L / U.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoestring.errors import SettingError
from shoestring.evaluate.likelihood import Tokens, likelihoods
from shoestring.measure import Kind, Quantity
from shoestring.measure.intervals import around, in_words
from shoestring.model import Transformer
from shoestring.progress import Progress, showing, under
from shoestring.tokenizer import Tokenizer

LN2 = math.log(2.0)

LARGEST = 700.0
"""Nats whose exponential a float still holds."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well a model predicts a text.

    Attributes:
        loss: nats per token.
        tokens: scored. bytes: that they stand for.
        standard_error: of bits_per_byte, over windows; None with a single window.
        loss_error: of loss, likewise.
        window_losses: nats, and window_bytes: of each window; for `paired_bootstrap`.
        before: what stands before each window, in words; empty when nothing does.
    """

    bits_per_byte: float
    perplexity: float
    loss: float
    tokens: int
    bytes: int
    standard_error: float | None
    loss_error: float | None
    window_losses: tuple[float, ...]
    window_bytes: tuple[int, ...]
    context: int
    before: str = ""

    def quantities(self) -> dict[str, Quantity]:
        """bits_per_byte, perplexity and loss as figures with 95 % intervals."""
        count = len(self.window_losses)
        method = f"{count} windows of {self.context} tokens, {self.tokens} scored{self.before}"
        return {
            "bits_per_byte": figure(self.bits_per_byte, "bit/B", method, self.standard_error, count),
            "perplexity": perplexity(self.loss, method, self.loss_error, count),
            "loss": figure(self.loss, "nat", f"per token; {method}", self.loss_error, count),
        }

    def __str__(self) -> str:
        spread = "" if self.standard_error is None else f" ± {self.standard_error:.4f}"
        return f"{self.bits_per_byte:.4f}{spread} bits per byte, perplexity {self.perplexity:.2f} over {self.tokens} tokens"


def bits_per_byte(
    model: Transformer,
    tokenizer: Tokenizer,
    text: str | Tokens,
    context: int = 1024,
    windows: int | None = None,
    spread: bool = False,
    progress: Progress | None = None,
) -> Score:
    """Score a text, or its tokens.

    Args:
        context: tokens of one window, the prefix among them; cut to the model's own.
        windows: at the most; all whole ones when None. A text shorter than one window is one window.
        spread: take the windows evenly from the whole text instead of its beginning.

    Raises:
        SettingError: fewer than two tokens, or nothing that stands for a byte.
        NotFinite: the model's logits are NaN or infinite on this text.
    """
    tokens = np.asarray(tokenizer.encode(text) if isinstance(text, str) else text)
    chosen = cut(tokens, min(context, model.config.context), windows, spread, tokenizer.prefix)
    first = max(1, len(tokenizer.prefix))
    with showing(progress) as progress:
        scored = likelihoods(model, chosen, [first] * len(chosen), under("bits per byte", progress))
    lengths = byte_lengths(tokenizer, model.config.vocabulary)
    sizes = [int(lengths[np.asarray(window[first:], dtype=np.int64)].sum()) for window in chosen]
    if sum(sizes) == 0:
        raise SettingError("text: its tokens stand for no byte (special tokens only); give a text with words")
    losses, counts = [one.loss for one in scored], [one.tokens for one in scored]
    per_token = sum(losses) / sum(counts)
    error = ratio_error(losses, sizes)
    return Score(
        bits_per_byte=sum(losses) / sum(sizes) / LN2,
        perplexity=math.exp(min(per_token, LARGEST)),
        loss=per_token,
        tokens=sum(counts),
        bytes=sum(sizes),
        standard_error=None if error is None else error / LN2,
        loss_error=ratio_error(losses, counts),
        window_losses=tuple(losses),
        window_bytes=tuple(sizes),
        context=len(chosen[0]),
        before=before(tokenizer, "each window"),
    )


def before(tokenizer: Tokenizer, what: str) -> str:
    """For a figure's method: what stands before a window or a context, and nothing where nothing does."""
    return f", {tokenizer.decode(tokenizer.prefix, special=True)} before {what}" if tokenizer.prefix else ""


def cut(
    tokens: np.ndarray, context: int, windows: int | None = None, spread: bool = False, prefix: Sequence[int] = ()
) -> list[np.ndarray]:
    """Non-overlapping windows of `context` tokens: the first ones, or evenly spread over all; the rest at the end is left out.

    Args:
        prefix: what each window begins with, as part of its `context` tokens.

    Raises:
        SettingError: a context or a text of fewer than two tokens, or no window wanted.
    """
    least = max(2, len(prefix) + 1)
    if context < least:
        raise SettingError(f"context: must be at least {least} tokens (one to see, one to predict), got {context}")
    if windows is not None and windows < 1:
        raise SettingError(f"windows: must be at least 1, got {windows}")
    if len(tokens) < 2:
        raise SettingError(f"text: {len(tokens)} tokens are too few to score, give at least 2")
    own = context - len(prefix)
    there = max(1, len(tokens) // own)
    count = there if windows is None else min(windows, there)
    numbers = [i * there // count for i in range(count)] if spread else range(count)
    chosen = [tokens[number * own : (number + 1) * own] for number in numbers]
    return [np.concatenate([np.asarray(prefix, dtype=tokens.dtype), window]) for window in chosen] if prefix else chosen


def byte_lengths(tokenizer: Tokenizer, vocabulary: int) -> np.ndarray:
    """Bytes of each token, filled up with zeros where a model's vocabulary is padded beyond its tokenizer's."""
    lengths = tokenizer.byte_lengths()
    return np.pad(lengths, (0, max(0, vocabulary - len(lengths))))


def ratio_error(numerators: list[float], denominators: list[int]) -> float | None:
    """Standard error of sum(numerators) / sum(denominators) over independent pairs; None for fewer than two."""
    count = len(numerators)
    if count < 2:
        return None
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    residual = top - top.sum() / bottom.sum() * bottom
    return float(math.sqrt(count / (count - 1) * (residual**2).sum()) / bottom.sum())


def figure(value: float, unit: str, method: str, error: float | None, samples: int, most: float = math.inf) -> Quantity:
    """A measured figure, 0 or above, from so many windows or rows: its standard error in words and its 95 % interval."""
    bounds = around(value, error, samples, least=0.0, most=most)
    return Quantity(value, unit, Kind.MEASURED, f"{method}; {in_words(error, samples)}", bounds)


def perplexity(loss: float, method: str, error: float | None, samples: int) -> Quantity:
    """exp(loss) with the interval of the loss, which is where the windows' noise is nearly normal."""
    bounds = around(loss, error, samples, least=0.0)
    ends = None if bounds is None else (math.exp(min(bounds[0], LARGEST)), math.exp(min(bounds[1], LARGEST)))
    return Quantity(math.exp(min(loss, LARGEST)), "", Kind.MEASURED, f"{method}; of the loss: {in_words(error, samples)}", ends)
