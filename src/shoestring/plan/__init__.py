"""What a budget buys: scaling laws, allocation, and the plan as a step of a recipe."""

from shoestring.plan.allocate import Wishes, allocate
from shoestring.plan.laws import LAWS, Law, effective_tokens
from shoestring.plan.technique import Plan
from shoestring.technique import Technique

__all__ = ["LAWS", "TECHNIQUES", "Law", "Plan", "Wishes", "allocate", "effective_tokens"]

TECHNIQUES: tuple[type[Technique], ...] = (Plan,)
