"""Scoring: how well a model of ours predicts each document of the corpus, for `select` and for orders of training.

With L the summed loss in nats of a document's tokens and U its bytes of UTF-8, its score is the bits per byte

    L / (U ln 2)

that a model, usually a small one trained before in the same recipe, needs for it: low where the text is fluent or repeats
itself, high where it is noise, and in between where there is something to learn. Pruning a corpus by this figure saves training
(Marion et al., arXiv 2309.04564). A document begins behind what the tokenizer puts before a text, else behind an end token,
as in training; a long one is read in windows, each of which sees only itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from shoestring.architecture.counts import forward_flops
from shoestring.errors import SettingError
from shoestring.evaluate import cost
from shoestring.measure import Hardware
from shoestring.technique import Prediction, Sketch, State, Task, Technique, Watch, need

if TYPE_CHECKING:
    from shoestring.model import Transformer
    from shoestring.tokenizer import Tokenizer

PERPLEXITY = "perplexity"
"""The score's name; its values are bits per byte, which rank documents as their perplexity per byte does."""


class ScoreDocuments(Technique):
    """Scores each document of the corpus by the bits per byte that the newest checkpoint needs for it."""

    name: ClassVar[str] = "score"
    room: ClassVar[str] = "evaluate"
    row: ClassVar[str] = "D3"
    paper: ClassVar[str] = "2309.04564"
    saves: ClassVar[tuple[str, ...]] = ("computation", "data")
    reads: ClassVar[tuple[str, ...]] = ("corpus", "checkpoint")
    uses: ClassVar[tuple[str, ...]] = ("scores",)
    gives: ClassVar[str] = "scores"

    context: Annotated[int, Field(ge=2)] = 256
    """Tokens of a window; cut to the model's own."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """Characters of each document that are read at the most; all when not given."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """One forward pass over the corpus."""
        from shoestring.data.cost import bytes_per_token

        config = sketch.model
        if config is None:
            raise SettingError("score: needs a checkpoint, and no step before it makes one; put such a step before it")
        count = sketch.documents or 0.0
        size = min(sketch.text_bytes or 0.0, count * self.limit if self.limit else float("inf"))
        tokens = size / bytes_per_token(config.vocabulary) + count
        return Prediction(cost.evaluation_usage(config, tokens, min(self.context, config.context), 1, hardware), sketch)

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Load the model, read the corpus, write the score beside those that are there."""
        from shoestring import model as models
        from shoestring.data import scores

        corpus = need(state, "corpus", self.name)
        model, tokenizer = models.load(need(state, "checkpoint", self.name), device=task.device, progress=watch.progress)
        found = self._scored(corpus, model, tokenizer, watch)
        return scores.write(state, task, PERPLEXITY, found, unit="bits per byte", context=self.context, limit=self.limit)

    def _scored(
        self, corpus: Path, model: Transformer, tokenizer: Tokenizer, watch: Watch
    ) -> Iterator[tuple[list[str], list[float]]]:
        from shoestring.data import documents

        context, total, done = min(self.context, model.config.context), documents.about(corpus)["documents"], 0
        for batch in documents.read(corpus, ("id", "text")):
            texts = [text[: self.limit] for text in batch.column("text").to_pylist()]
            values, tokens = document_bits(model, tokenizer, texts, context)
            watch.meter.count(flops=forward_flops(model.config, tokens, context))
            done += len(texts)
            watch.progress(f"{self.name}: {done:,} of {total:,} documents", done / total)
            yield batch.column("id").to_pylist(), values


def document_bits(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], context: int) -> tuple[list[float], int]:
    """Bits per byte of each text, and the tokens that were scored.

    Args:
        context: tokens that a window predicts from, what stands before it among them; at most the model's own.

    Raises:
        SettingError: the context has no room for a token behind what the tokenizer puts before a text.
        NotFinite: the model's logits are NaN or infinite on one of them.
    """
    from shoestring.evaluate.likelihood import likelihoods

    first = len(tokenizer.prefix) or 1
    if context < first:
        raise SettingError(f"score.context: {context} tokens have no room behind the tokenizer's prefix of {first}; raise it")
    windows: list[list[int]] = []
    owners: list[int] = []
    for owner, tokens in enumerate(tokenizer.encode_batch(list(texts))):
        stream = [*(tokenizer.prefix or (tokenizer.end,)), *tokens]
        for start in range(first, len(stream), context + 1 - first):
            # Where nothing stands before a text, the last token of the window before is seen.
            windows.append([*(tokenizer.prefix or stream[start - 1 : start]), *stream[start : start + context + 1 - first]])
            owners.append(owner)
    losses = [one.loss for one in likelihoods(model, windows, [first] * len(windows))]
    nats = np.bincount(owners, losses, len(texts))
    bits = [float(loss) / math.log(2) / max(1, len(text.encode())) for loss, text in zip(nats, texts, strict=True)]
    return bits, sum(map(len, windows)) - first * len(windows)
