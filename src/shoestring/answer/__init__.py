"""How an answer is bought: what answers, and how fast and dear it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.lazy import lazily

if TYPE_CHECKING:
    from shoestring.answer.answerer import Answer, Answerer, Local
    from shoestring.answer.speed import Speed
    from shoestring.technique import Technique

    TECHNIQUES: tuple[type[Technique], ...]

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

__all__ = ["TECHNIQUES", "VERSION", "Answer", "Answerer", "Local", "Speed"]

__getattr__ = lazily(__name__, __file__, TECHNIQUES=("Speed",))
