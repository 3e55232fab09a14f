"""Build, adapt, shrink and serve language models within a budget, and see what every step cost.

>>> import shoestring as ss
>>> model, tokenizer = ss.load("smollm2-135m")
>>> ss.GPTQ(bits=4).apply_to(model, ss.compress.calibration_tokens(tokenizer, text))
>>> print(ss.evaluate.bits_per_byte(model, tokenizer, other_text))
>>> ss.save(model, tokenizer, "out/")

Names are looked up when first used: importing this package imports neither torch nor any other heavy library.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = (
    "measure", "artifact", "technique", "tokenizer", "model", "data", "train", "infer",
    "answer", "evaluate", "tune", "compress", "plan", "recipe", "explore", "report", "serve",
)  # fmt: skip
_NAMES = {"load": "model", "save": "model", "load_recipe": "recipe", "run": "recipe", "ShoestringError": "errors"}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"shoestring.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"shoestring.{_NAMES[name]}"), name)
    if name[:1].isupper():
        for kind in importlib.import_module("shoestring.recipe").techniques().values():
            if kind.__name__ == name:
                return kind
    raise AttributeError(f"module 'shoestring' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS, *_NAMES])
