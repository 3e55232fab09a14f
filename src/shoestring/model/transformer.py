"""One decoder-only Transformer; its configuration names its parts. Single-device and free of training or serving concerns.

    x = embedding(tokens);  x += mixer(norm(x));  x += feed_forward(norm(x));  logits = head(norm(x))

B batch, T tokens, C width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shoestring.model.attention.grouped import Attention
from shoestring.model.cache import Cache, LayerState
from shoestring.model.config import ModelConfig
from shoestring.model.feedforward.gated import SwiGLU
from shoestring.model.feedforward.plain import GELU
from shoestring.model.inputs import Inputs, visible_in_cache, visible_in_document
from shoestring.model.norm import NORMS
from shoestring.model.position import rope

if TYPE_CHECKING:
    from shoestring.model.checkpoint.origin import Origin

MIXERS = {"attention": Attention}
FEED_FORWARDS = {"swiglu": SwiGLU, "gelu": GELU}

TURNS = 8192
"""Positions of the rotary table to begin with; it grows when a sequence needs more, so a context of millions costs nothing."""


class Block(nn.Module):
    """A layer: tokens mix, then each thinks for itself; both add to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.mixer_norm = norm(config.width, config.norm_epsilon)
        self.mixer = MIXERS[config.mixers[layer]](config)
        self.feed_forward_norm = norm(config.width, config.norm_epsilon)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config)

    def forward(self, x_BTC: Tensor, inputs: Inputs, state: LayerState | None = None) -> Tensor:
        x_BTC = x_BTC + self.mixer(self.mixer_norm(x_BTC), inputs, state)
        return x_BTC + self.feed_forward(self.feed_forward_norm(x_BTC))


class Transformer(nn.Module):
    """Tokens in, logits out. Weights are uninitialised noise until `initialise` or a checkpoint fills them.

    Attributes:
        config: its shape and parts.
        origin: what the files said that it was loaded from, None for a model that was made here.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.origin: Origin | None = None
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.final_norm = NORMS[config.norm](config.width, config.norm_epsilon)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        self.turns: Tensor | None
        turns = rope.table(config, min(config.context, TURNS)) if config.position == "rope" else None
        self.register_buffer("turns", turns, persistent=False)

    def forward(self, tokens_BT: Tensor, cache: Cache | None = None, documents_BT: Tensor | None = None) -> Tensor:
        """Logits of the next token at each place, (B, T, V).

        Args:
            tokens_BT: token numbers, int64.
            cache: decoding state to read and extend; call `cache.advance` after it.
            documents_BT: document numbers; a token then sees its own document only.
        """
        return self.head(self.hidden(tokens_BT, cache, documents_BT))

    def hidden(self, tokens_BT: Tensor, cache: Cache | None = None, documents_BT: Tensor | None = None) -> Tensor:
        """The normalised last layer, (B, T, C): what `head` turns into logits."""
        inputs = self.inputs(tokens_BT, cache, documents_BT)
        x_BTC = self.embed(tokens_BT, inputs)
        for layer, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, inputs, None if cache is None else cache.layers[layer])
        return self.final_norm(x_BTC)

    def inputs(self, tokens_BT: Tensor, cache: Cache | None = None, documents_BT: Tensor | None = None) -> Inputs:
        """What all blocks of one pass share."""
        length = tokens_BT.shape[1]
        if cache is None:
            turn = None if self.turns is None else self._turns_to(length)[None, :length]
            visible = None if documents_BT is None else visible_in_document(documents_BT)
            return Inputs(None, turn, visible)
        positions_BT = cache.positions(length)
        turn = None if self.turns is None else self._turns_to(cache.slots)[positions_BT]
        return Inputs(positions_BT, turn, visible_in_cache(positions_BT, cache.slots))

    def embed(self, tokens_BT: Tensor, inputs: Inputs) -> Tensor:
        """What the first block reads, (B, T, C)."""
        x_BTC = self.embedding(tokens_BT)
        if self.positions is None:
            return x_BTC
        places = inputs.positions_BT
        if places is None:
            places = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        return x_BTC + self.positions(places)

    def new_cache(self, batch: int, slots: int) -> Cache:
        """Empty decoding state for so many rows of so many tokens at the most."""
        return Cache(self, batch, slots)

    def initialise(self, seed: int = 0) -> Transformer:
        """Draw weights as GPT-2 did: normal with deviation 0.02, the projections into the residual stream scaled down by
        the root of twice the number of layers. The draw depends on the seed alone, not on device or call order.
        """
        generator = torch.Generator().manual_seed(seed)
        into_stream = 0.02 / math.sqrt(2 * self.config.layers)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 1:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                    continue
                deviation = into_stream if name.endswith(("mixer.output.weight", "feed_forward.down.weight")) else 0.02
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
        return self

    def _turns_to(self, length: int) -> Tensor:
        """The rotary table, made longer when a sequence needs it, and again when the model was recast: it stays float32."""
        assert self.turns is not None
        if length > self.turns.shape[0] or self.turns.dtype != torch.float32:
            self.turns = rope.table(self.config, max(length, self.turns.shape[0])).to(self.turns.device)
        return self.turns
