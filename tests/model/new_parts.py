"""Parts that the house does not have: what it takes to add one. A declaration, a module, one name in each of two tables."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoestring.architecture.feedforward import FEED_FORWARDS
from shoestring.architecture.layer import MIXERS
from shoestring.architecture.norm import RMSNorm
from shoestring.architecture.part import Part, StateShape
from shoestring.architecture.rope import Rope
from shoestring.architecture.settings import Count
from shoestring.architecture.slot import Slot, matrix
from shoestring.model.cache import LayerState
from shoestring.model.inputs import Inputs
from shoestring.model.layers import dense, named, norm
from shoestring.model.rope import key_of, rotate
from shoestring.model.transformer import MODULES


class MLA(Part):
    """Attention whose keys and values come from one short latent vector a token (arXiv 2405.04434)."""

    kind: Literal["mla"] = "mla"
    heads: Count = 2
    latent: Count = 8
    head_size: Count = 8
    turning: Count = 4
    rope: Rope = Rope()

    def slots(self, width: int) -> tuple[Slot, ...]:
        queries = self.heads * (self.head_size + self.turning)
        return (
            matrix("query", queries, width, ("heads", "width")),
            matrix("down", self.latent + self.turning, width, ("latent", "width")),
            RMSNorm().slot("norm", self.latent, "latent"),
            matrix("up", 2 * self.heads * self.head_size, self.latent, ("heads", "latent"), "latent", fed_by="norm"),
            matrix("output", width, self.heads * self.head_size, ("width", "heads"), "mixed", draw="into_stream"),
        )

    def state(self, width: int) -> StateShape:
        return StateShape(token={"latent": (self.latent + self.turning,)})

    @property
    def rotary(self) -> tuple[Rope, int]:
        return self.rope, self.turning


class LatentAttention(nn.Module):
    def __init__(self, part: MLA, width: int) -> None:
        super().__init__()
        slots = named(part.slots(width))
        self.part, self.rotary = part, key_of(part.rotary)
        self.query, self.down, self.up, self.output = (dense(slots[name]) for name in ("query", "down", "up", "output"))
        self.norm = norm(RMSNorm(), slots["norm"])

    def forward(self, x_BTC: Tensor, inputs: Inputs, state: LayerState | None = None) -> Tensor:
        part, (B, T, _) = self.part, x_BTC.shape
        turn = inputs.rotaries[self.rotary]
        plain, turning = self.query(x_BTC).view(B, T, part.heads, -1).transpose(1, 2).split([part.head_size, part.turning], -1)
        queries = torch.cat((plain, rotate(turning, turn)), -1)
        latent, key = self.down(x_BTC).split([part.latent, part.turning], -1)
        kept = torch.cat((self.norm(latent), rotate(key[:, None], turn)[:, 0]), -1)
        if state is not None:
            (kept,) = state.extend(inputs.rows, inputs.positions_BT, latent=kept)
        latent, key = kept.split([part.latent, part.turning], -1)
        keys, values = self.up(latent).view(B, -1, part.heads, 2 * part.head_size).transpose(1, 2).chunk(2, -1)
        keys = torch.cat((keys, key[:, None].expand(-1, part.heads, -1, -1)), -1)
        visible = inputs.masks[None]
        mixed = F.scaled_dot_product_attention(queries, keys, values, visible, is_causal=visible is None and T > 1)
        return self.output(mixed.transpose(1, 2).reshape(B, T, -1))


class Mamba2(Part):
    """A state space with one decay a head (arXiv 2405.21060), its convolution over the last four tokens included."""

    kind: Literal["mamba2"] = "mamba2"
    heads: Count = 2
    head_size: Count = 8
    state_size: Count = 4
    reach: Count = 4

    @property
    def mixed(self) -> int:
        return self.heads * self.head_size + 2 * self.state_size

    def slots(self, width: int) -> tuple[Slot, ...]:
        inner = self.heads * self.head_size
        return (
            matrix("input", inner + self.mixed + self.heads, width, ("inner", "width")),
            Slot("convolution", (self.mixed, self.reach), ("inner", "state"), draw="ones"),
            Slot("decay", (self.heads,), ("heads",), draw="ones"),
            Slot("skip", (self.heads,), ("heads",), draw="ones"),
            RMSNorm().slot("norm", inner, "inner"),
            matrix("output", width, inner, ("width", "inner"), "mixed", draw="into_stream"),
        )

    def state(self, width: int) -> StateShape:
        return StateShape(row={"state": (self.heads, self.head_size, self.state_size), "last": (self.reach - 1, self.mixed)})


class Weight(nn.Module):
    """A parameter that no product reads."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(slot.shape))


class StateSpace(nn.Module):
    def __init__(self, part: Mamba2, width: int) -> None:
        super().__init__()
        slots = named(part.slots(width))
        self.part, self.input, self.output = part, dense(slots["input"]), dense(slots["output"])
        self.convolution, self.decay, self.skip = (Weight(slots[name]) for name in ("convolution", "decay", "skip"))
        self.norm = norm(RMSNorm(), slots["norm"])

    def forward(self, x_BTC: Tensor, inputs: Inputs, state: LayerState | None = None) -> Tensor:
        part, (B, T, _) = self.part, x_BTC.shape
        inner = part.heads * part.head_size
        gate, mixed, step = self.input(x_BTC).split([inner, part.mixed, part.heads], -1)
        last = mixed.new_zeros(B, part.reach - 1, part.mixed) if state is None else state.row["last"][inputs.rows.places]
        seen = torch.cat((last, mixed), 1)
        mixed = F.silu(torch.einsum("btrc,cr->btc", seen.unfold(1, part.reach, 1).transpose(2, 3), self.convolution.weight))
        x, into, out = mixed.split([inner, part.state_size, part.state_size], -1)
        x, step = x.view(B, T, part.heads, -1), F.softplus(step)
        fade = -step * self.decay.weight.exp()
        if state is None:
            y = self._parallel(x * step[..., None], fade, into, out)
        else:
            y = self._recurrent(x * step[..., None], fade, into, out, state, inputs, seen)
        y = (y + x * self.skip.weight[:, None]).reshape(B, T, inner)
        return self.output(self.norm(y * F.silu(gate)))

    @staticmethod
    def _parallel(x: Tensor, fade: Tensor, into: Tensor, out: Tensor) -> Tensor:
        """All tokens at once: a product masked by how much has faded between two tokens."""
        total = fade.cumsum(1)
        between = (total[:, :, None] - total[:, None, :]).masked_fill(
            ~torch.ones(x.shape[1], x.shape[1]).tril().bool()[..., None], -1e30
        )
        return torch.einsum("btn,bsn,btsh,bshd->bthd", out, into, between.exp(), x)

    @staticmethod
    def _recurrent(x: Tensor, fade: Tensor, into: Tensor, out: Tensor, state: LayerState, inputs: Inputs, seen: Tensor) -> Tensor:
        """Token by token; padding leaves the state alone."""
        rows, found = inputs.rows, []
        held = state.row["state"][rows.places].clone()
        for t in range(x.shape[1]):
            grown = held * fade[:, t].exp()[..., None, None] + torch.einsum("bhd,bn->bhdn", x[:, t], into[:, t])
            held = torch.where((t < rows.count_B)[:, None, None, None], grown, held)
            found.append(torch.einsum("bhdn,bn->bhd", held, out[:, t]))
        state.row["state"][rows.places] = held
        reach = state.row["last"].shape[1]
        index = rows.count_B[:, None] + torch.arange(reach)
        state.row["last"][rows.places] = seen.gather(1, index[..., None].expand(-1, -1, seen.shape[2]))
        return torch.stack(found, 1)


class Experts(Part):
    """Each token goes through the two experts that its router likes best (arXiv 2101.03961)."""

    kind: Literal["experts"] = "experts"
    experts: Count = 4
    inner: Count = 16
    chosen: Count = 2

    def slots(self, width: int) -> tuple[Slot, ...]:
        share = {"active": self.chosen / self.experts, "reads": "input"}
        return (
            matrix("router", self.experts, width, ("experts", "width")),
            Slot("up", (self.experts, self.inner, width), ("experts", "inner", "width"), **share),
            Slot("down", (self.experts, width, self.inner), ("experts", "width", "inner"), **{**share, "reads": "hidden"}),
        )


class RoutedExperts(nn.Module):
    """Balanced without a loss: what is chosen too often is liked less (arXiv 2408.15664)."""

    def __init__(self, part: Experts, width: int) -> None:
        super().__init__()
        slots = named(part.slots(width))
        self.part, self.router = part, dense(slots["router"])
        self.up, self.down = Weight(slots["up"]), Weight(slots["down"])
        self.register_buffer("liking", torch.zeros(part.experts, device="cpu"), persistent=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        score = self.router(x_BTC).sigmoid()
        chosen = (score + self.liking).topk(self.part.chosen, -1).indices
        if self.training:
            used = torch.bincount(chosen.flatten(), minlength=self.part.experts).float()
            self.liking += 0.05 * (used.mean() - used).sign()
        weight = torch.zeros_like(score).scatter(-1, chosen, score.gather(-1, chosen))
        hidden = F.silu(torch.einsum("btc,enc->bten", x_BTC, self.up.weight))
        return torch.einsum("bten,ecn,bte->btc", hidden, self.down.weight, weight / weight.sum(-1, keepdim=True))


NEW: dict[str, tuple[Any, Any, Any]] = {
    "mla": (MIXERS, MLA, LatentAttention),
    "mamba2": (MIXERS, Mamba2, StateSpace),
    "experts": (FEED_FORWARDS, Experts, RoutedExperts),
}


@pytest.fixture
def new_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names in the tables."""
    for name, (table, part, module) in NEW.items():
        monkeypatch.setitem(table._makes, name, part)
        monkeypatch.setitem(MODULES, part, module)
