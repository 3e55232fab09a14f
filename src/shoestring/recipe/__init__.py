"""A run: steps, the store, the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.lazy import lazily

if TYPE_CHECKING:
    from shoestring.recipe.budgets import budget
    from shoestring.recipe.forecast import Forecast, broken, limits, predict, refuse_impossible
    from shoestring.recipe.ledger import Row, read, versions
    from shoestring.recipe.recipe import Recipe, Step, build, load_recipe
    from shoestring.recipe.rooms import find, tables, techniques
    from shoestring.recipe.runner import PROBES, Observer, Run, Silent, prepare, run

__all__ = [
    "PROBES",
    "Forecast",
    "Observer",
    "Recipe",
    "Row",
    "Run",
    "Silent",
    "Step",
    "broken",
    "budget",
    "build",
    "find",
    "limits",
    "load_recipe",
    "predict",
    "prepare",
    "read",
    "refuse_impossible",
    "run",
    "tables",
    "techniques",
    "versions",
]

__getattr__ = lazily(__name__, __file__)
