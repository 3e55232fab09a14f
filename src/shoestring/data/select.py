"""Selection: documents stay or go by a score that an earlier step gave them; no model is needed here.

A score is a number a document (perplexity, quality, weight) or its embedding; a rule makes of all scores which documents stay:

    threshold   least <= s <= most
    top         the best by s, until a share of the bytes is full (perplexity pruning, arXiv 2309.04564)
    gumbel      the top of s / temperature + g with g ~ Gumbel(0, 1): a draw without replacement by weight exp(s / temperature)
                (the importance resampling of DSIR, arXiv 2302.03169)
    semantic    of documents in one cluster whose embeddings' cosine is above `similarity`, one (SemDeDup, arXiv 2303.09540)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow.compute as pc
from pydantic import Field, model_validator

from shoestring.choice import OneOf
from shoestring.data import cost, documents, scores
from shoestring.data.documents import Drop
from shoestring.data.rules import RULES, Scored
from shoestring.measure import Hardware
from shoestring.technique import Prediction, Sketch, State, Task, Technique, Watch, Word, need


class Select(Technique):
    """Keeps documents by their scores: between bounds, the best share, a draw by weight, or one of each kind."""

    name: ClassVar[str] = "select"
    room: ClassVar[str] = "data"
    row: ClassVar[str] = "D3"
    paper: ClassVar[str] = "2309.04564"
    saves: ClassVar[tuple[str, ...]] = ("computation", "data", "storage")
    reads: ClassVar[tuple[str, ...]] = ("corpus", "scores")
    gives: ClassVar[str] = "corpus"

    score: Word = "perplexity"
    """Which of the scores, by name."""
    rule: Annotated[str, OneOf(RULES)] = "top"
    """How scores decide."""
    prefer: Literal["high", "low"] = "low"
    """Which values top and gumbel prefer."""
    share: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of the corpus' bytes that top and gumbel keep."""
    megabytes: float | None = Field(default=None, gt=0.0)
    """MB of text that they keep, instead of a share."""
    least: float | None = None
    """Lowest score that threshold keeps."""
    most: float | None = None
    """Highest score that threshold keeps."""
    temperature: float = Field(default=1.0, gt=0.0)
    """Of gumbel's weights: higher is closer to chance."""
    similarity: float = Field(default=0.95, gt=0.0, lt=1.0)
    """Cosine of embeddings above which semantic keeps only one."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.rule == "threshold" and self.least is None and self.most is None:
            raise ValueError("threshold needs a bound; set least, most, or both")
        return self

    @property
    def sign(self) -> float:
        """What a value is multiplied with so that higher is better."""
        return 1.0 if self.prefer == "high" else -1.0

    def wanted(self, sizes: np.ndarray) -> float:
        """Bytes to keep of documents of these sizes."""
        return float(sizes.sum()) * self.share if self.megabytes is None else self.megabytes * 1e6

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Time from bytes; what stays is what is asked for, or assumed."""
        return cost.filtering("select", sketch, hardware, self._share(sketch))

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Read the scores, let the rule decide.

        Raises:
            FileError: no such score, or a document without it.
        """
        given = need(state, "scores", self.name)

        def find(source: Path) -> dict[int, Drop]:
            orders, stay, values = select(source, given, self, task.seed)
            detail = [f"{self.score} {value:.6g}" if values.ndim == 1 else "" for value in values]
            return {int(orders[row]): Drop(self.rule, detail[row]) for row in np.flatnonzero(~stay)}

        about = {"select": {"score": self.score, "rule": self.rule}}
        return documents.keep(state, task, watch, self.name, find, about)

    def _share(self, sketch: Sketch) -> float | None:
        if self.rule not in ("top", "gumbel"):
            return None
        size = sketch.text_bytes or 0.0
        return self.share if self.megabytes is None else min(1.0, self.megabytes * 1e6 / size) if size else 1.0


def select(source: Path, given: Path, settings: Select, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For the documents of a Parquet file: their `order` (N,), whether each stays (N,), and its score (N,) or (N, D).

    Args:
        given: the artifact of scores.

    Raises:
        FileError: no such score, or a document without it.
    """
    ids: list[str] = []
    orders, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in documents.rows(source, ("id", "order", "text")):
        ids += batch.column("id").to_pylist()
        orders.append(batch.column("order").to_numpy())
        sizes.append(pc.binary_length(batch.column("text")).to_numpy().astype(np.int64))
    scored = Scored(scores.values(given, settings.score, ids), np.concatenate(sizes), seed)
    return np.concatenate(orders), RULES[settings.rule](scored, settings), scored.values
