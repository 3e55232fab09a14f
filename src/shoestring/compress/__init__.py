"""How a model shrinks: rounding, GPTQ, pruning by magnitude and by contribution, distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.lazy import lazily

if TYPE_CHECKING:
    from shoestring.choice import Table
    from shoestring.compress.calibration import calibration_tokens
    from shoestring.compress.distil import Distil
    from shoestring.compress.divergence import DIVERGENCES
    from shoestring.compress.gptq import GPTQ
    from shoestring.compress.magnitude import Magnitude
    from shoestring.compress.prune import PATTERNS
    from shoestring.compress.rtn import RTN
    from shoestring.compress.wanda import Wanda
    from shoestring.technique import Technique

    TECHNIQUES: tuple[type[Technique], ...]
    TABLES: tuple[Table[Any], ...]

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

__all__ = ["GPTQ", "RTN", "TABLES", "TECHNIQUES", "VERSION", "Distil", "Magnitude", "Wanda", "calibration_tokens"]

__getattr__ = lazily(
    __name__, __file__, TECHNIQUES=("Magnitude", "Wanda", "Distil", "RTN", "GPTQ"), TABLES=("PATTERNS", "DIVERGENCES")
)
