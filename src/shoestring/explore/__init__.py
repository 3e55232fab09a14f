"""Which combination: a factorial over a recipe's steps, and whether their gains multiply."""

from shoestring.explore.compose import Composition, Trial, check, compose
from shoestring.explore.factorial import Cell, Combination, Effect, combinations, effects, unusable

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
    "unusable",
]
