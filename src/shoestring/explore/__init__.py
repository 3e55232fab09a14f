"""Which combination: a factorial over a recipe's steps, and whether their gains multiply."""

from shoestring.explore.compose import check, compose
from shoestring.explore.composition import Composition, Trial
from shoestring.explore.factorial import Cell, Combination, Effect, combinations, effects, unusable
from shoestring.explore.tables import text

__all__ = [
    "Cell",
    "Combination",
    "Composition",
    "Effect",
    "Trial",
    "check",
    "combinations",
    "compose",
    "effects",
    "text",
    "unusable",
]
