"""How fast and in what portions to learn, from the sizes of model and data.

    learning rate = 1.79 N^-0.713 D^0.307,  batch = 0.58 D^0.571 tokens        (Step Law, arXiv 2503.04715)

with N parameters outside the embedding and D tokens: fitted to 3,700 runs of 60M to 1B parameters with AdamW. Far below
that the rate grows past what small models bear, so it is capped.
"""

from __future__ import annotations

from shoestring.errors import SettingError
from shoestring.measure import Hardware
from shoestring.train.training_plan import MICRO_TOKENS

STEP_LAW = "Step Law, arXiv 2503.04715"
HIGHEST_RATE = 0.01
"""Above it AdamW was unstable or no better in any small run that we made or know of. Assumed."""
WARMUP = 0.05
"""Share of the steps in which the rate rises. Short runs need a larger share than the 1-2 % of long ones. Assumed."""
DECAY = 0.20
"""Last share in which it falls: 10-20 % suffice (arXiv 2405.18392, figure 5)."""
FEWEST_STEPS = 30
"""Fewer optimizer steps than this are no training."""


def learning_rate(inner_parameters: float, tokens: float) -> float:
    """AdamW's peak learning rate for so many parameters outside the embedding."""
    return min(HIGHEST_RATE, 1.79 * float(inner_parameters) ** -0.713 * float(tokens) ** 0.307)


def batch_tokens(tokens: float) -> float:
    """Tokens of one optimizer step."""
    return 0.58 * float(tokens) ** 0.571


def portions(tokens: float, context: int, hardware: Hardware, batch: int | None = None) -> tuple[int, int]:
    """Sequences of an optimizer step, and of its micro-batches on each device.

    Args:
        tokens: to be read in all. batch: sequences of a step, when that is set.

    Raises:
        SettingError: a batch that the devices can't share equally.
    """
    devices, most = hardware.count, max(1, MICRO_TOKENS[hardware.device] // context)
    if batch is not None:
        if batch % devices:
            raise SettingError(f"plan.batch: must be a multiple of the {devices} devices, got {batch}")
        share = batch // devices
        return batch, next(part for part in range(min(share, most), 0, -1) if share % part == 0)
    share = max(1, round(batch_tokens(tokens) / context / devices))
    # So few steps that the schedule has no room: rather smaller portions.
    share = max(1, min(share, int(tokens / (FEWEST_STEPS * context * devices))))
    passes = -(-share // most)
    micro = -(-share // passes)  # equal parts: the batch grows by less than a sequence a part
    return micro * passes * devices, micro


def warmup_and_decay(steps: int) -> tuple[int, int]:
    """Steps in which the rate rises, and in which it falls."""
    return max(1, round(WARMUP * steps)), round(DECAY * steps)
