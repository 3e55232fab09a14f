"""Softmax attention whose query heads share key-value heads in groups (`architecture.Attention`).

B batch, T query tokens, S key tokens, H query heads, G key-value heads, D head size, C width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.architecture import Attention
from shoestring.model.cache import LayerState
from shoestring.model.inputs import Inputs
from shoestring.model.layers import dense, named, norm
from shoestring.model.rope import key_of, rotate


class GroupedAttention(nn.Module):
    """Project to queries, keys and values, turn by position, attend to what came before, project back."""

    def __init__(self, part: Attention, width: int) -> None:
        super().__init__()
        slots = named(part.slots(width))
        self.query, self.key = dense(slots["query"]), dense(slots["key"])
        self.value, self.output = dense(slots["value"]), dense(slots["output"])
        self.query_norm = norm(part.head_norm, slots.get("query_norm"))
        self.key_norm = norm(part.head_norm, slots.get("key_norm"))
        self.head_size, self.window = part.head_size, part.window
        self.rotary = None if part.rotary is None else key_of(part.rotary)
        self.shared = part.kv_heads != part.heads

    def forward(self, x_BTC: Tensor, inputs: Inputs, state: LayerState | None = None) -> Tensor:
        B, T, _ = x_BTC.shape
        split = (B, T, -1, self.head_size)
        queries_BTHD, keys_BTGD, values_BTGD = (matrix(x_BTC).view(split) for matrix in (self.query, self.key, self.value))
        if self.query_norm is not None:
            queries_BTHD, keys_BTGD = self.query_norm(queries_BTHD), self.key_norm(keys_BTGD)
        queries_BHTD, keys_BGTD, values_BGTD = (each.transpose(1, 2) for each in (queries_BTHD, keys_BTGD, values_BTGD))
        if self.rotary is not None:
            turn_BT2D = inputs.rotaries[self.rotary]
            queries_BHTD, keys_BGTD = rotate(queries_BHTD, turn_BT2D), rotate(keys_BGTD, turn_BT2D)
        if state is not None:
            assert inputs.rows is not None
            assert inputs.positions_BT is not None
            keys_BGTD, values_BGTD = state.extend(inputs.rows, inputs.positions_BT, keys=keys_BGTD, values=values_BGTD)
        visible_BhTS = inputs.masks[self.window]
        mixed_BHTD = F.scaled_dot_product_attention(
            queries_BHTD,
            keys_BGTD,
            values_BGTD,
            attn_mask=visible_BhTS,
            is_causal=visible_BhTS is None and T > 1,
            enable_gqa=self.shared,
        )
        return self.output(mixed_BHTD.transpose(1, 2).reshape(B, T, -1))
