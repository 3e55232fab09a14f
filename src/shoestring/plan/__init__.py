"""What a budget buys: scaling laws, their fitting, and the allocation of a budget to model, tokens and steps."""

from shoestring.plan.allocate import Allocation, allocate
from shoestring.plan.estimate import Estimate, estimate
from shoestring.plan.fit import Fit, fit, fit_file
from shoestring.plan.laws import LAWS, Law, bits_per_byte
from shoestring.plan.technique import Plan
from shoestring.technique import Choice, Technique

TECHNIQUES: tuple[type[Technique], ...] = (Plan,)
CHOICES: tuple[Choice, ...] = (
    Choice("plan", "Plan.law", "besiroglu", "Chinchilla's law with refitted constants", "B1", "2404.10102"),
    Choice("plan", "Plan.law", "hoffmann", "Chinchilla's law with the constants of its paper", "B1", "2203.15556"),
)

__all__ = [
    "CHOICES",
    "LAWS",
    "TECHNIQUES",
    "Allocation",
    "Estimate",
    "Fit",
    "Law",
    "Plan",
    "allocate",
    "bits_per_byte",
    "estimate",
    "fit",
    "fit_file",
]
