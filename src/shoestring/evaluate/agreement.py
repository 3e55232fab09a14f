"""How faithful a changed model is to its original, token by token, whatever is right.

    KL = mean over places of sum_v p(v) (ln p(v) - ln q(v)),  p the reference's distribution, q the model's
    agreement = share of places at which both hold the same token likeliest

"Loyalty" of arXiv 2109.03228 is 1 minus a divergence of this kind. N places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shoestring.errors import SettingError
from shoestring.evaluate.likelihood import Tokens, batch_tokens, batches, device_of, evaluating, finite, padded, rows_at_once
from shoestring.evaluate.windows import before, cut, figure, ratio_error
from shoestring.measure import Quantity
from shoestring.model import Transformer, hidden
from shoestring.progress import Progress, showing
from shoestring.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Divergence and agreement between a model and its reference.

    Attributes:
        divergence: nats per token. agreement: share of places.
        divergence_error, agreement_error: standard errors over windows; None with a single one.
        tokens: places compared. window_divergences: summed nats of each window.
        before: what stands before each window, in words; empty when nothing does.
    """

    divergence: float
    agreement: float
    divergence_error: float | None
    agreement_error: float | None
    tokens: int
    window_divergences: tuple[float, ...]
    before: str = ""

    def quantities(self) -> dict[str, Quantity]:
        """As figures with 95 % intervals."""
        count = len(self.window_divergences)
        method = f"against the reference, {count} windows, {self.tokens} tokens{self.before}"
        return {
            "divergence": figure(self.divergence, "nat", f"KL per token {method}", self.divergence_error, count),
            "agreement": figure(self.agreement, "", f"same likeliest token {method}", self.agreement_error, count, most=1.0),
        }


def fidelity(
    model: Transformer,
    reference: Transformer,
    tokens: Tokens,
    context: int = 1024,
    windows: int | None = None,
    spread: bool = False,
    tokenizer: Tokenizer | None = None,
    progress: Progress | None = None,
) -> Fidelity:
    """Compare two models of one vocabulary on windows of tokens.

    Args:
        tokenizer: what it puts before a text stands before each window, as when the windows are scored.

    Raises:
        SettingError: vocabularies of different sizes, or too few tokens.
        NotFinite: the logits of one of them are NaN or infinite.
    """
    if model.config.vocabulary != reference.config.vocabulary:
        raise SettingError(
            f"reference: has a vocabulary of {reference.config.vocabulary}, the model {model.config.vocabulary}; "
            "fidelity compares models of one tokenizer"
        )
    longest = min(context, model.config.context, reference.config.context)
    prefix = () if tokenizer is None else tokenizer.prefix
    chosen = cut(np.asarray(tokens), longest, windows, spread, prefix)
    first = max(1, len(prefix))
    divergences, same = [0.0] * len(chosen), [0] * len(chosen)
    done = 0
    with torch.inference_mode(), evaluating(model), evaluating(reference), showing(progress) as progress:
        for rows in batches([len(window) for window in chosen], batch_tokens(model)):
            found = _compare(model, reference, [chosen[row] for row in rows], first)
            finite(found[0], "the model or its reference")
            for row, divergence, agreed in zip(rows, *found):
                divergences[row], same[row] = divergence, agreed
            done += len(rows)
            progress(f"{done} of {len(chosen)} windows", done / len(chosen))
    counts = [len(window) - first for window in chosen]
    return Fidelity(
        divergence=sum(divergences) / sum(counts),
        agreement=sum(same) / sum(counts),
        divergence_error=ratio_error(divergences, counts),
        agreement_error=ratio_error([float(agreed) for agreed in same], counts),
        tokens=sum(counts),
        window_divergences=tuple(divergences),
        before="" if tokenizer is None else before(tokenizer, "each window"),
    )


def _compare(
    model: Transformer, reference: Transformer, windows: Sequence[np.ndarray], first: int
) -> tuple[list[float], list[int]]:
    """Summed divergence and agreements of windows of one length, from their token `first` on."""
    tokens_BT = padded(windows, device_of(model))[:, :-1]
    places = tokens_BT.shape[1] - first + 1
    ours_NC = model(tokens_BT, read=hidden)[:, first - 1 :].flatten(0, 1)
    theirs_NC = reference(tokens_BT.to(device_of(reference)), read=hidden)[:, first - 1 :].flatten(0, 1)
    step = max(1, rows_at_once(model) // 2)
    divergence_N, same_N = [], []
    for begin in range(0, len(ours_NC), step):
        part = slice(begin, begin + step)
        ours_NV = model.head(ours_NC[part]).float()
        theirs_NV = reference.head(theirs_NC[part]).float().to(ours_NV.device)
        divergence_N.append(divergence(theirs_NV, ours_NV))
        same_N.append(ours_NV.argmax(-1) == theirs_NV.argmax(-1))
    summed_B = torch.cat(divergence_N).view(-1, places).sum(1)
    agreed_B = torch.cat(same_N).view(-1, places).sum(1)
    return summed_B.tolist(), agreed_B.tolist()


def divergence(reference_NV: Tensor, model_NV: Tensor) -> Tensor:
    """KL(reference || model) of each row of logits, nats, float64 (N,)."""
    p_NV, q_NV = reference_NV.log_softmax(-1), model_NV.log_softmax(-1)
    return (p_NV.exp() * (p_NV - q_NV)).sum(-1, dtype=torch.float64)
