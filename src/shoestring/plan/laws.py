"""Scaling laws: how the loss falls with parameters and tokens, and what that says of the best use of a budget.

    L(N, D) = E + A / N^alpha + B / D^beta                         Chinchilla, arXiv 2203.15556, equation 10
    D' = U + U r (1 - exp(-(D/U - 1) / r)),  r = 15.39             tokens beyond U unique ones count less, arXiv 2305.16264

The constants were fitted to web text and models of 44M parameters and more. At a few million parameters the loss they give
is not to be believed; the balance between N and D that they give (some 20 tokens a parameter) is what is used here.

N parameters, D tokens read, U tokens there are, C operations of training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REPEATS = 15.39
"""How slowly repeated tokens lose their worth, in epochs (arXiv 2305.16264, section 5)."""


@dataclass(frozen=True, slots=True)
class Law:
    """A parametric law with its constants; losses in nats per token."""

    name: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    source: str

    def loss(self, parameters: float, tokens: float) -> float:
        """Loss after training, in nats per token."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of the least loss for C = 6 N D operations (equation 4 of arXiv 2203.15556)."""
        exponent = self.beta / (self.alpha + self.beta)
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        parameters = balance * (flops / 6) ** exponent
        return parameters, flops / 6 / parameters


LAWS = {
    law.name: law
    for law in (
        Law("besiroglu", 1.8172, 482.01, 2085.43, 0.3478, 0.3658, "arXiv 2404.10102, a refit of Chinchilla's third approach"),
        Law("hoffmann", 1.69, 406.4, 410.7, 0.34, 0.28, "arXiv 2203.15556, equation 10"),
    )
}
"""Published laws by name."""


def effective_tokens(read: float, unique: float) -> float:
    """What `read` tokens are worth when only `unique` different ones are there."""
    if read <= unique:
        return read
    return unique + unique * REPEATS * (1 - math.exp(-(read / unique - 1) / REPEATS))


def learning_rate(parameters: float, tokens: float) -> float:
    """Step Law (arXiv 2503.04715): 1.79 N^-0.713 D^0.307, N without the embedding; fitted from 60M parameters up, cut to
    the range 1e-4 to 1e-2 because small models would be given more than they bear.
    """
    return min(1e-2, max(1e-4, 1.79 * parameters**-0.713 * tokens**0.307))


def batch_tokens(tokens: float) -> float:
    """Tokens of one optimizer step, Step Law (arXiv 2503.04715): 0.58 D^0.571."""
    return 0.58 * tokens**0.571
