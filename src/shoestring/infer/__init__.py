"""How a model answers: sampling, batched and cached generation, the engine behind the server, and what decoding costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.lazy import lazily

if TYPE_CHECKING:
    from shoestring.infer.answering import Answering, Speculate
    from shoestring.infer.answers import generate
    from shoestring.infer.choices import TABLES
    from shoestring.infer.decoder import TooLong
    from shoestring.infer.engine import Answer, Busy, Closed, Engine
    from shoestring.infer.sample import Sample
    from shoestring.infer.sampling import GREEDY, Sampling
    from shoestring.infer.stops import stop_tokens
    from shoestring.technique import Technique

    TECHNIQUES: tuple[type[Technique], ...]

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

__all__ = [
    "GREEDY",
    "TABLES",
    "TECHNIQUES",
    "VERSION",
    "Answer",
    "Answering",
    "Busy",
    "Closed",
    "Engine",
    "Sample",
    "Sampling",
    "Speculate",
    "TooLong",
    "generate",
    "stop_tokens",
]

__getattr__ = lazily(__name__, __file__, TECHNIQUES=("Sample", "Speculate"))
