"""How the next token is chosen: greedy, or drawn after temperature, top-k and top-p (nucleus sampling, arXiv 1904.09751).

A draw inverts the cumulative distribution in the order of the vocabulary at one uniform number. Each row brings its own
numbers, drawn from its own seed, so what a row says never depends on its neighbours in the batch.

B rows, V vocabulary, R rows with a top-k or top-p.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

NONE = -1
"""Stands for a token where none can be chosen."""


class Sampling(BaseModel):
    """How one answer is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    temperature: float = Field(1.0, ge=0)
    """Logits are divided by it; 0 always takes the likeliest token (greedy)."""
    top_k: int = Field(0, ge=0)
    """Only the k likeliest tokens can be drawn; 0 leaves all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Only the likeliest tokens that together reach this share of the probability can be drawn (after top_k)."""
    max_tokens: int = Field(128, gt=0)
    """The answer ends after so many tokens."""
    seed: int | None = Field(0, ge=-(2**63), lt=2**63)
    """The same seed and prompt give the same answer; None draws a fresh seed."""

    @property
    def greedy(self) -> bool:
        """True when nothing is drawn."""
        return self.temperature == 0

    @property
    def filtered(self) -> bool:
        """True when some tokens can't be drawn."""
        return not self.greedy and (self.top_k > 0 or self.top_p < 1)

    def uniforms(self) -> list[float]:
        """The random numbers in [0, 1) of a whole answer, one for each token."""
        if self.greedy:
            return []
        seed = random.SystemRandom().getrandbits(63) if self.seed is None else self.seed
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(self.max_tokens, generator=generator, dtype=torch.float64).tolist()


GREEDY = Sampling(temperature=0)


def keep(logits_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor) -> Tensor:
    """True for the tokens that can be drawn, (B, V): first top-k, then top-p on what it leaves.

    Among equal logits the lower token number counts as likelier.

    Args:
        logits_BV: already divided by the temperature.
        top_k_B: int64, 0 for no limit.
        top_p_B: share in (0, 1]; the token that crosses it stays.
    """
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device)
    outside_BV = (rank_V >= top_k_B[:, None]) & (top_k_B[:, None] > 0)
    share_BV = sorted_BV.masked_fill(outside_BV, -torch.inf).softmax(dim=-1, dtype=torch.float64)
    before_BV = share_BV.cumsum(dim=-1) - share_BV
    outside_BV |= (before_BV >= top_p_B[:, None]) & (rank_V > 0) & (top_p_B[:, None] < 1)
    return torch.zeros_like(outside_BV).scatter(-1, order_BV, ~outside_BV)


def draw(probabilities_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """The token of each row at which the cumulative probability passes its uniform number, (B,).

    Args:
        probabilities_BV: not negative; need not sum to 1.
        uniforms_B: float64 in [0, 1).
    """
    cumulative_BV = probabilities_BV.cumsum(dim=-1, dtype=torch.float64)
    total_B1 = cumulative_BV[:, -1:]
    # Rounding must not carry the target to the total itself, behind which no token stands.
    target_B1 = torch.minimum(uniforms_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    found_B1 = torch.searchsorted(cumulative_BV, target_B1, right=True)
    return found_B1.squeeze(1).clamp_(max=probabilities_BV.shape[-1] - 1)


@dataclass(frozen=True, slots=True)
class Chooser:
    """The settings of a batch's rows as tensors; made anew when rows join or leave, not at each step."""

    temperature_B1: Tensor | None
    """None when all rows are greedy; 1 in rows that are."""
    greedy_B: Tensor | None
    """True in greedy rows; None when there is none."""
    filtered_R: Tensor | None
    """Numbers of the rows with a top-k or top-p; None when there is none."""
    top_k_R: Tensor | None
    top_p_R: Tensor | None

    @classmethod
    def of(cls, settings: Sequence[Sampling], device: torch.device) -> Chooser:
        """For these rows."""
        if all(one.greedy for one in settings):
            return cls(None, None, None, None, None)
        chosen = [number for number, one in enumerate(settings) if one.filtered]
        greedy = [one.greedy for one in settings]
        temperature = [1.0 if one.greedy else one.temperature for one in settings]
        return cls(
            torch.tensor(temperature, device=device)[:, None],
            torch.tensor(greedy, device=device) if any(greedy) else None,
            torch.tensor(chosen, device=device) if chosen else None,
            torch.tensor([settings[number].top_k for number in chosen], device=device) if chosen else None,
            torch.tensor([settings[number].top_p for number in chosen], device=device, dtype=torch.float64) if chosen else None,
        )

    def probabilities(self, logits_BV: Tensor) -> Tensor:
        """What each row's token is drawn from, float32 (B, V); the kept tokens' shares need not sum to 1."""
        assert self.temperature_B1 is not None
        # The largest logit goes to 0 first: a tiny temperature then can't overflow.
        logits_BV = logits_BV.float()
        logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / self.temperature_B1
        if self.filtered_R is not None:
            assert self.top_k_R is not None
            assert self.top_p_R is not None
            some_RV = logits_BV[self.filtered_R]
            kept_RV = keep(some_RV, self.top_k_R, self.top_p_R)
            logits_BV[self.filtered_R] = some_RV.masked_fill(~kept_RV, -torch.inf)
        return logits_BV.softmax(dim=-1)

    def choose(self, logits_BV: Tensor, uniforms: Sequence[float] = ()) -> Tensor:
        """The next token of each row, int64 (B,); `NONE` where the row's logits are NaN or infinite.

        Args:
            logits_BV: the last place's logits, any float dtype.
            uniforms: one number in [0, 1) for each row; what stands in greedy rows doesn't matter.
        """
        # A NaN is the largest of a row that has one; a logit of minus infinity is only a token that is never said.
        largest_B, greedy_B = logits_BV.max(dim=-1)
        broken_B = ~torch.isfinite(largest_B)
        if self.temperature_B1 is None:
            return greedy_B.masked_fill_(broken_B, NONE)
        uniforms_B = torch.tensor(uniforms, dtype=torch.float64, device=logits_BV.device)
        drawn_B = draw(self.probabilities(logits_BV), uniforms_B)
        chosen_B = drawn_B if self.greedy_B is None else torch.where(self.greedy_B, greedy_B, drawn_B)
        return chosen_B.masked_fill_(broken_B, NONE)
