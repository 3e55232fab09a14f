"""Rotary positions (arXiv 2104.09864): queries and keys turn by an angle that grows with position."""

from __future__ import annotations

from pydantic import model_validator

from shoestring.architecture.settings import Count, Positive, Settings


class RopeScaling(Settings):
    """Llama 3's stretching of rotary frequencies (arXiv 2407.21783): long waves are slowed by `factor`, short ones kept."""

    factor: Positive
    """Waves longer than `original_context / low_frequency` tokens turn so many times slower."""
    low_frequency: Positive = 1.0
    """Turns within the original context up to which a pair is slowed in full."""
    high_frequency: Positive = 4.0
    """Turns from which it is left alone; between both the factor passes smoothly into 1."""
    original_context: Count = 8192
    """Tokens that the model attended over before it was stretched."""

    @model_validator(mode="after")
    def _ordered(self) -> RopeScaling:
        if self.high_frequency <= self.low_frequency:
            raise ValueError(f"high_frequency {self.high_frequency:g} must be above low_frequency {self.low_frequency:g}")
        return self


class Rope(Settings):
    """Pair i of a head turns by base^(-2i / head_size) radians a token."""

    base: Positive = 10_000.0
    """A larger one turns slow pairs more slowly: for longer texts."""
    scaling: RopeScaling | None = None
    """Slow pairs are stretched; None leaves all."""
