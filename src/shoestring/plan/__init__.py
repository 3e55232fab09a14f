"""What a budget buys: scaling laws, their fitting, and the allocation of a budget to model, tokens and steps."""

from shoestring.plan.allocate import Allocation, allocate
from shoestring.plan.estimate import Estimate, estimate
from shoestring.plan.fit import Fit, fit_file, fit_law
from shoestring.plan.laws import LAWS, Law, bits_per_byte
from shoestring.plan.technique import Plan
from shoestring.technique import Technique

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

TECHNIQUES: tuple[type[Technique], ...] = (Plan,)
TABLES = (LAWS,)

__all__ = [
    "LAWS",
    "TABLES",
    "TECHNIQUES",
    "VERSION",
    "Allocation",
    "Estimate",
    "Fit",
    "Law",
    "Plan",
    "allocate",
    "bits_per_byte",
    "estimate",
    "fit_law",
    "fit_file",
]
