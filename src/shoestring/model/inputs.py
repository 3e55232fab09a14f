"""What every layer of one forward pass shares beside the residual stream: facts about its tokens, and what follows from them.

B batch, T query tokens, S key tokens, D head size; h is 1, for all heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shoestring.model.cache import Cache, LayerState, Rows


@dataclass(frozen=True, slots=True)
class Inputs:
    """Facts come from the caller; the model adds what follows from them once, before the first block (`Transformer.prepared`).

    Attributes:
        documents_BT: document numbers; a token then sees its own document only. None: each row is one.
        cache: decoding state to read and extend; None: the pass keeps nothing.
        rows: which rows of the cache the tokens belong to; all of them, and every token counts, when not given.
        positions_BT: where each token stands; None means 0 to T-1 in every row.
        rotaries: cosines and sines at those positions, (B or 1, T, 2, D/2), for each way to turn that the model has.
        masks: for each window that the model has, True where a query may see a key, (B, h, T, S); None means plainly causal.
    """

    documents_BT: Tensor | None = None
    cache: Cache | None = None
    rows: Rows | None = None
    positions_BT: Tensor | None = None
    rotaries: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[int | None, Tensor | None] = field(default_factory=dict)

    def state(self, layer: int) -> LayerState | None:
        """The decoding state of a layer."""
        return None if self.cache is None else self.cache.layers[layer]

    def mask(self, tokens_BT: Tensor, window: int | None) -> Tensor | None:
        """Which keys a query may see."""
        device, length = tokens_BT.device, tokens_BT.shape[1]
        if self.rows is not None:
            assert self.positions_BT is not None
            keys_S = torch.arange(self.rows.length, device=device)
            queries = self.positions_BT[:, None, :, None]
            return _within(keys_S <= queries, keys_S, queries, window)
        if self.documents_BT is None and (window is None or window >= length):
            return None
        places_T = torch.arange(length, device=device)
        causal = (places_T <= places_T[:, None])[None, None]
        if self.documents_BT is not None:
            causal = causal & (self.documents_BT[:, None, :, None] == self.documents_BT[:, None, None, :])
        return _within(causal, places_T, places_T[:, None], window)


def _within(visible: Tensor, keys: Tensor, queries: Tensor, window: int | None) -> Tensor:
    """Of what is visible, what is less than a window away."""
    return visible if window is None else visible & (keys > queries - window)
