"""How likely a model holds given tokens: the one place where logits become losses, for windows of text and for task rows.

The full logits never exist: the last hidden layer of the scored places goes through the head in chunks.

    loss of token t = logsumexp(logits) - logits[t],  in nats

B sequences, T tokens, C width, V vocabulary, N scored places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shoestring.architecture.counts import widest
from shoestring.errors import NotFinite, SettingError
from shoestring.evaluate.cost import LOGIT_BYTES, PASS_TOKENS
from shoestring.model import Transformer, hidden
from shoestring.progress import Progress, silent

DEVICE_SHARE = 0.1
"""Share of a GPU's memory that a forward pass may take; a smaller GPU passes fewer tokens."""

Tokens = Sequence[int] | np.ndarray


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely the scored part of a sequence is: summed loss in nats, tokens scored, and whether greedy decoding gives it."""

    loss: float
    tokens: int
    greedy: bool


@torch.inference_mode()
def likelihoods(
    model: Transformer,
    sequences: Sequence[Tokens],
    starts: Sequence[int],
    progress: Progress = silent,
) -> list[Likelihood]:
    """Score each sequence from its token `start` on, given all tokens before.

    Args:
        sequences: token numbers, not longer than the model's context plus one. starts: at least 1 each.
        progress: told of the share done.

    Raises:
        SettingError: a sequence with nothing to score, or a token outside the vocabulary.
        NotFinite: the model's logits are NaN or infinite on one of them.
    """
    for number, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        if not 1 <= start < len(sequence):
            raise SettingError(f"sequence {number}: {len(sequence)} tokens leave nothing to score from token {start} on")
        lowest, highest = int(np.min(sequence)), int(np.max(sequence))
        if lowest < 0 or highest >= model.config.vocabulary:
            raise SettingError(f"sequence {number}: token {highest} is outside the model's {model.config.vocabulary} entries")
    found: dict[int, Likelihood] = {}
    with evaluating(model):
        for rows in batches([len(sequence) for sequence in sequences], batch_tokens(model)):
            scored = _score(model, [sequences[row] for row in rows], [starts[row] for row in rows])
            found.update(zip(rows, scored))
            progress(f"{len(found)} of {len(sequences)} sequences", len(found) / len(sequences))
    return [found[row] for row in range(len(sequences))]


def device_of(model: Transformer) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


class evaluating:
    """A block in which the model is in evaluation mode."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.was_training = self.model.training
        self.model.eval()

    def __exit__(self, *error: object) -> None:
        self.model.train(self.was_training)


def batch_tokens(model: Transformer) -> int:
    """Tokens of one forward pass on the model's device, from what the widest layer holds of each."""
    device, config = device_of(model), model.config
    most = PASS_TOKENS.get(device.type, PASS_TOKENS["cuda"])
    if device.type != "cuda":
        return most
    each = 4 * (6 * config.width + 3 * widest(config))
    return min(most, int(DEVICE_SHARE * torch.cuda.get_device_properties(device).total_memory) // each)


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows to pass together, of `budget` tokens, long ones first: little is padding, and the first batch is the largest."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        count = max(1, budget // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def padded(sequences: Sequence[Tokens], device: torch.device) -> Tensor:
    """Sequences side by side, int64 (B, T), zeros behind the shorter ones: a causal model doesn't see them."""
    tokens_BT = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        tokens_BT[row, : len(sequence)] = sequence
    return torch.from_numpy(tokens_BT).to(device)


def rows_at_once(model: Transformer) -> int:
    """Places whose logits exist at one time."""
    device = device_of(model).type
    return max(1, LOGIT_BYTES.get(device, LOGIT_BYTES["cuda"]) // (4 * model.config.vocabulary))


def finite(losses: Sequence[float], whose: str = "the model") -> None:
    """Refuse losses, or divergences, that say nothing.

    Raises:
        NotFinite: one is NaN or infinite.
    """
    bad = sum(not math.isfinite(loss) for loss in losses)
    if bad:
        raise NotFinite(
            f"{whose} gives no finite numbers on this text (NaN or infinity in {bad} of {len(losses)} sequences), so there is "
            "nothing to measure; its weights are damaged or its training diverged: take an earlier checkpoint"
        )


def _score(model: Transformer, sequences: Sequence[Tokens], starts: Sequence[int]) -> list[Likelihood]:
    """One forward pass."""
    tokens_BT = padded(sequences, device_of(model))
    device, length = tokens_BT.device, tokens_BT.shape[1]
    hidden_BTC = model(tokens_BT[:, :-1], read=hidden)
    place_T = torch.arange(1, length, device=device)
    first_B1 = torch.tensor(starts, device=device)[:, None]
    last_B1 = torch.tensor([len(sequence) for sequence in sequences], device=device)[:, None]
    scored_BT = (place_T >= first_B1) & (place_T < last_B1)
    hidden_NC, targets_N = hidden_BTC[scored_BT], tokens_BT[:, 1:][scored_BT]
    row_N = scored_BT.nonzero()[:, 0]
    loss_B = torch.zeros(len(sequences), dtype=torch.float64, device=device)
    missed_B = torch.zeros(len(sequences), dtype=torch.long, device=device)
    step = rows_at_once(model)
    for begin in range(0, len(targets_N), step):
        part = slice(begin, begin + step)
        logits_NV = model.head(hidden_NC[part]).float()
        picked_N = logits_NV.gather(1, targets_N[part, None])[:, 0]
        loss_B.index_add_(0, row_N[part], (logits_NV.logsumexp(-1) - picked_N).double())
        missed_B.index_add_(0, row_N[part], (logits_NV.argmax(-1) != targets_N[part]).long())
    finite(loss_B.tolist())
    counts = [len(sequence) - start for sequence, start in zip(sequences, starts)]
    return [Likelihood(loss, count, missed == 0) for loss, count, missed in zip(loss_B.tolist(), counts, missed_B.tolist())]
