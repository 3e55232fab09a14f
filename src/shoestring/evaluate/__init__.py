"""How good a model is: bits per byte, perplexity, tasks, fidelity to another model, and whether a difference is chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.lazy import lazily

if TYPE_CHECKING:
    from shoestring.evaluate.agreement import Fidelity, fidelity
    from shoestring.evaluate.bootstrap import Comparison, paired_bootstrap
    from shoestring.evaluate.difference import differences
    from shoestring.evaluate.likelihood import Likelihood, likelihoods
    from shoestring.evaluate.measuring import Evaluate, measure_model
    from shoestring.evaluate.rows import read_rows
    from shoestring.evaluate.score import ScoreDocuments, document_bits
    from shoestring.evaluate.tasks import choice_scores, cloze_scores, exact_scores, task_scores
    from shoestring.evaluate.windows import Score, bits_per_byte
    from shoestring.technique import Technique

    TECHNIQUES: tuple[type[Technique], ...]

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

__all__ = [
    "TECHNIQUES",
    "VERSION",
    "Comparison",
    "Evaluate",
    "Fidelity",
    "Likelihood",
    "Score",
    "ScoreDocuments",
    "bits_per_byte",
    "choice_scores",
    "cloze_scores",
    "differences",
    "document_bits",
    "exact_scores",
    "fidelity",
    "likelihoods",
    "measure_model",
    "paired_bootstrap",
    "read_rows",
    "task_scores",
]

__getattr__ = lazily(__name__, __file__, TECHNIQUES=("Evaluate", "ScoreDocuments"))
