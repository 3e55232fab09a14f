"""SwiGLU (arXiv 2002.05202): down(silu(gate(x)) * up(x))."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.model.config import ModelConfig


class SwiGLU(nn.Module):
    """Three matrices; the gate decides which neurons speak."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.feed_forward_width, bias=False)
        self.up = nn.Linear(config.width, config.feed_forward_width, bias=False)
        self.down = nn.Linear(config.feed_forward_width, config.width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_BTC)) * self.up(x_BTC))
