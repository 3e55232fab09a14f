"""Softmax attention whose query heads share key-value heads in groups: MHA, GQA (arXiv 2305.13245) and MQA in one.

B batch, T query tokens, S key tokens, H query heads, G key-value heads, D head size, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.model.cache import KeysValues
from shoestring.model.config import ModelConfig
from shoestring.model.inputs import Inputs
from shoestring.model.norm import NORMS
from shoestring.model.position.rope import rotate


class Attention(nn.Module):
    """Project to queries, keys and values, turn by position, attend to what came before, project back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
        self.query = nn.Linear(config.width, queries, bias=config.attention_bias)
        self.key = nn.Linear(config.width, keys, bias=config.attention_bias)
        self.value = nn.Linear(config.width, keys, bias=config.attention_bias)
        self.output = nn.Linear(queries, config.width, bias=False)
        norm = NORMS[config.norm]
        self.query_norm = norm(config.head_size, config.norm_epsilon) if config.head_norm else nn.Identity()
        self.key_norm = norm(config.head_size, config.norm_epsilon) if config.head_norm else nn.Identity()

    def forward(self, x_BTC: Tensor, inputs: Inputs, state: KeysValues | None = None) -> Tensor:
        B, T, _ = x_BTC.shape
        split = (B, T, -1, self.config.head_size)
        queries_BHTD = self.query_norm(self.query(x_BTC).view(split)).transpose(1, 2)
        keys_BGTD = self.key_norm(self.key(x_BTC).view(split)).transpose(1, 2)
        values_BGTD = self.value(x_BTC).view(split).transpose(1, 2)
        if inputs.turn_BT2D is not None:
            queries_BHTD = rotate(queries_BHTD, inputs.turn_BT2D)
            keys_BGTD = rotate(keys_BGTD, inputs.turn_BT2D)
        if state is not None:
            assert inputs.positions_BT is not None
            keys_BGTD, values_BGTD = state.write(keys_BGTD, values_BGTD, inputs.positions_BT)
        mixed_BHTD = F.scaled_dot_product_attention(
            queries_BHTD,
            keys_BGTD,
            values_BGTD,
            attn_mask=inputs.visible_BhTS,
            is_causal=inputs.visible_BhTS is None and T > 1,
            enable_gqa=self.config.kv_heads != self.config.heads,
        )
        return self.output(mixed_BHTD.transpose(1, 2).reshape(B, T, -1))

    def new_state(self, batch: int, slots: int, device: torch.device, dtype: torch.dtype) -> KeysValues:
        """An empty cache for this layer."""
        return KeysValues(self.config, batch, slots, device, dtype)
