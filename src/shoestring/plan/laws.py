"""What loss a model of N parameters reaches on D tokens, and what to choose for a given amount of computation.

    L(N, D) = E + A / N^alpha + B / D^beta             (arXiv 2203.15556, equation 2; nats per token)

The constants were fitted to web text and models of 44M to 16B parameters. Far below that they are an assumption: good for
choosing between shapes, worthless as a loss. `plan law` finds constants for your own runs.

Repeated tokens are worth less than new ones, and parameters beyond what the unique tokens can teach likewise
(arXiv 2305.16264, equations 5 and 6):

    D' = U + U R (1 - exp(-(D/U - 1) / R)),  R = 15.39;    N' = M + M S (1 - exp(-(N/M - 1) / S)),  S = 5.31

for U unique tokens and the M parameters that are optimal for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from shoestring.choice import Choice, Table

REPEATED_TOKENS = 15.39
"""R*_D of arXiv 2305.16264, table 1: the number of repetitions after which most of their worth is gone."""
EXCESS_PARAMETERS = 5.31
"""R*_N of the same."""


@dataclass(frozen=True, slots=True)
class Law:
    """Constants of the loss, and where they come from.

    Attributes:
        smallest_parameters, smallest_tokens: the least of the runs that it was fitted to; below, loss is not predicted.
        bytes_per_token: of the tokenizer of those runs, to turn nats per token into bits per byte; 0 when not known.
    """

    name: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    source: str
    smallest_parameters: float = 0.0
    smallest_tokens: float = 0.0
    bytes_per_token: float = 0.0

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats per token after reading `tokens` new tokens."""
        return self.E + self.A / float(parameters) ** self.alpha + self.B / float(tokens) ** self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of the least loss for 6 N D = `flops` (arXiv 2203.15556, equation 4)."""
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters

    def parameters_for(self, tokens: float) -> float:
        """The N for which `tokens` is the optimal D: where a larger model and more text would help equally."""
        return (self.alpha * self.A / (self.beta * self.B) * tokens**self.beta) ** (1 / self.alpha)

    def tokens_for(self, parameters: float) -> float:
        """The D for which `parameters` is the optimal N."""
        return (self.beta * self.B / (self.alpha * self.A) * parameters**self.alpha) ** (1 / self.beta)

    def loss_on(self, parameters: float, tokens: float, unique: float) -> float:
        """Nats per token when only `unique` of the tokens are different (arXiv 2305.16264)."""
        if tokens <= unique:
            return self.loss(parameters, tokens)
        useful = worth(unique, tokens, REPEATED_TOKENS)
        fitting = self.parameters_for(unique)
        held = worth(fitting, parameters, EXCESS_PARAMETERS) if parameters > fitting else parameters
        return self.loss(held, useful)

    def covers(self, parameters: float, tokens: float) -> bool:
        """Whether a loss predicted for such a run means anything: not far below what the law was fitted to."""
        return parameters >= self.smallest_parameters / 3 and tokens >= self.smallest_tokens / 3

    def bits_per_byte(self, parameters: float, tokens: float, unique: float) -> tuple[float, tuple[float, float]] | None:
        """The loss in bits per byte of text like the law's own, with an interval; None where the law says nothing.

        The loss per token is turned with the law's own tokenizer, whatever yours is. Text differs more than models do: code
        lies far below web text, so the interval is a third either way.
        """
        if not self.bytes_per_token or not self.covers(parameters, tokens):
            return None
        value = bits_per_byte(self.loss_on(parameters, tokens, unique), self.bytes_per_token)
        return value, (value / 1.5, value * 1.33)


def worth(unique: float, given: float, decay: float) -> float:
    """How many new units `given` ones are worth when only `unique` differ."""
    if given <= unique:
        return given
    return unique + unique * decay * -math.expm1(-(given / unique - 1) / decay)


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Loss per token as bits per byte of text."""
    return nats_per_token / math.log(2) / bytes_per_token


# The smallest runs of Hoffmann and others: 44M parameters, 0.9e9 tokens. Bytes per token: a 32,000-entry SentencePiece
# vocabulary on English web text, assumed.
_WEB = {"smallest_parameters": 44e6, "smallest_tokens": 0.9e9, "bytes_per_token": 4.3}

HOFFMANN = Law("hoffmann", 1.69, 406.4, 410.7, 0.34, 0.28, "Hoffmann and others, arXiv 2203.15556, equation 10", **_WEB)
BESIROGLU = Law(
    "besiroglu", 1.8172, 482.01, 2085.43, 0.3478, 0.3658, "Besiroglu and others' refit, arXiv 2404.10102, table 1", **_WEB
)

LAWS = Table(
    "Plan.law",
    Choice("besiroglu", BESIROGLU, "Chinchilla's law with refitted constants", row="B1", paper="2404.10102"),
    Choice("hoffmann", HOFFMANN, "Chinchilla's law with the constants of its paper", row="B1", paper="2203.15556"),
)
"""Published laws."""
