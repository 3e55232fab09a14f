"""One step of decoding, the only one: some tokens go in, what comes next is chosen at each place, right guesses are taken.

A prefill is a step that reads whole prompts; plain decoding is a step of one token a row; with a drafter the tokens behind the
first are guesses. Each place has its own random number, so what is taken is what plain decoding would have said, guess or none.
A wrong guess needs no undoing: what it wrote lies beyond the row's length.

B rows, T tokens of each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from shoestring.infer.sampling import Chooser
from shoestring.model import Cache, Inputs, Rows, Transformer


@dataclass(frozen=True, slots=True)
class Taken:
    """What a step chose.

    Attributes:
        chosen_BT: at each place; NONE where logits are not finite.
        taken_B: how many of them count; None: all.
        last_B1: the newest that counts, which the next step reads.
        ready: recorded when `chosen_BT` is on its way to the host; None when it is there.
    """

    chosen_BT: Tensor
    taken_B: Tensor | None
    last_B1: Tensor
    ready: torch.cuda.Event | None = None

    def landing(self) -> Taken:
        """The same, its choice on the way to the host where a GPU made it."""
        if self.chosen_BT.device.type != "cuda":
            return self
        landed = torch.empty(self.chosen_BT.shape, dtype=self.chosen_BT.dtype, pin_memory=True)
        landed.copy_(self.chosen_BT, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return replace(self, chosen_BT=landed, ready=ready)

    def read(self) -> list[list[int]]:
        """The tokens of each row, waited for."""
        if self.ready is not None:
            self.ready.synchronize()
        rows: list[list[int]] = self.chosen_BT.tolist()
        return rows if self.taken_B is None else [row[:count] for row, count in zip(rows, self.taken_B.tolist())]


def step(
    model: Transformer,
    cache: Cache,
    rows: Rows,
    tokens_BT: Tensor,
    chooser: Chooser,
    uniforms: Sequence[Sequence[float]],
    prompts: bool = False,
) -> Taken:
    """Read tokens, choose what follows, extend the cache.

    Args:
        rows: of the cache, with how many of the tokens count.
        tokens_BT: the newest token of each row and guesses of those after it; whole prompts with `prompts`, padded behind.
        chooser: of each place that is chosen at, row by row.
        uniforms: its random numbers, for each row.
        prompts: choose at the last token of each row alone.
    """

    def read(x_BTC: Tensor, head: nn.Module) -> Tensor:
        # Only the last place of a prompt goes through the head: it is the widest matrix of a small model.
        places = x_BTC[torch.arange(len(x_BTC), device=x_BTC.device), rows.count_B - 1] if prompts else x_BTC.flatten(0, 1)
        found: Tensor = head(places)
        return found

    logits_NV = model(tokens_BT, Inputs(cache=cache, rows=rows), read=read)
    chosen_BT = chooser.choose(logits_NV, [number for row in uniforms for number in row]).view(len(tokens_BT), -1)
    taken_B = None
    if chosen_BT.shape[1] > 1:
        taken_B = 1 + (chosen_BT[:, :-1] == tokens_BT[:, 1:]).cumprod(1).sum(1)
    cache.advance(rows, taken_B)
    last_B1 = chosen_BT if taken_B is None else chosen_BT.gather(1, taken_B[:, None] - 1)
    return Taken(chosen_BT, taken_B, last_B1.clamp(min=0))
