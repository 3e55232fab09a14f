"""Feed-forwards (`architecture.SwiGLU`, `architecture.GELU`): what each token goes through by itself."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.architecture import GELU, SwiGLU
from shoestring.model.layers import dense, named


class Gated(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, part: SwiGLU, width: int) -> None:
        super().__init__()
        slots = named(part.slots(width))
        self.gate, self.up, self.down = dense(slots["gate"]), dense(slots["up"]), dense(slots["down"])

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_BTC)) * self.up(x_BTC))


class Plain(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, part: GELU, width: int) -> None:
        super().__init__()
        slots = named(part.slots(width))
        self.up, self.down = dense(slots["up"]), dense(slots["down"])

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTC)))
