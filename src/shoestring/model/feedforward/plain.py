"""The two-matrix feed-forward with GELU (arXiv 1606.08415), as in GPT-2: down(gelu(up(x)))."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.model.config import ModelConfig


class GELU(nn.Module):
    """Two matrices and a smooth rectifier."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.feed_forward_width, bias=False)
        self.down = nn.Linear(config.feed_forward_width, config.width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTC)))
