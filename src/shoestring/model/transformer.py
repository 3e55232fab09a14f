"""One decoder-only language model; its configuration names its parts. Single-device and free of training or serving concerns.

    x = embedding(tokens);  x += mixer(norm(x));  x += feed_forward(norm(x));  logits = head(norm(x))

This is the only loop over the blocks that has tokens outside. What wants to stand between two blocks (an early exit, pruned
tokens, weights that are brought in, taps) is a `visit`; what wants the last layer instead of logits is a `read`.

B batch, T tokens, C width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shoestring.architecture import GELU, Attention, Layer, ModelConfig, Part, Slot, SwiGLU
from shoestring.architecture.slot import Draw
from shoestring.model.attention import GroupedAttention
from shoestring.model.cache import LayerState
from shoestring.model.feedforward import Gated, Plain
from shoestring.model.forms import Matrix
from shoestring.model.inputs import Inputs
from shoestring.model.layers import dense, embedding, named, norm
from shoestring.model.rope import Rotary, key_of

if TYPE_CHECKING:
    from shoestring.model.checkpoint.origin import Origin

MODULES: dict[type[Part], Callable[[Any, int], nn.Module]] = {
    Attention: GroupedAttention,
    SwiGLU: Gated,
    GELU: Plain,
}
"""The module of each declaration: what computes it, given its settings and the width of the stream."""

ALL = slice(None)

Visit = Callable[[int, "Block", Tensor, Inputs], tuple[Tensor, Inputs]]
"""(number, block, x_BTC, inputs) -> what the next block reads."""
Reader = Callable[[Tensor, nn.Module], Tensor]
"""(normalised last layer (B, T, C), head) -> what the pass gives."""


def logits(x_BTC: Tensor, head: nn.Module) -> Tensor:
    """The next token's at each place, (B, T, V)."""
    found: Tensor = head(x_BTC)
    return found


def hidden(x_BTC: Tensor, head: nn.Module) -> Tensor:
    """The normalised last layer itself, (B, T, C)."""
    return x_BTC


def plain(number: int, block: Block, x_BTC: Tensor, inputs: Inputs) -> tuple[Tensor, Inputs]:
    """Go through the block."""
    return block(x_BTC, inputs, inputs.state(number)), inputs


class Block(nn.Module):
    """A layer: tokens mix, then each thinks for itself; both add to the residual stream."""

    def __init__(self, layer: Layer, width: int) -> None:
        super().__init__()
        slots, self.parallel = named(layer.slots(width)), layer.parallel
        self.matrices = tuple(slot.name for slot in slots.values() if slot.reads and len(slot.shape) == 2)
        self.mixer_norm, self.mixer_norm_after, self.mixer = self._made("mixer", layer, slots, width)
        self.feed_forward_norm, self.feed_forward_norm_after, self.feed_forward = self._made("feed_forward", layer, slots, width)

    def forward(self, x_BTC: Tensor, inputs: Inputs, state: LayerState | None = None) -> Tensor:
        mixed_BTC = self.mixer(x_BTC if self.mixer_norm is None else self.mixer_norm(x_BTC), inputs, state)
        mixed_BTC = x_BTC + (mixed_BTC if self.mixer_norm_after is None else self.mixer_norm_after(mixed_BTC))
        if self.feed_forward is None:
            return mixed_BTC
        read_BTC = x_BTC if self.parallel else mixed_BTC
        thought_BTC = self.feed_forward(read_BTC if self.feed_forward_norm is None else self.feed_forward_norm(read_BTC))
        return mixed_BTC + (thought_BTC if self.feed_forward_norm_after is None else self.feed_forward_norm_after(thought_BTC))

    @staticmethod
    def _made(name: str, layer: Layer, slots: dict[str, Slot], width: int) -> tuple[Any, Any, Any]:
        """The norms before and after a part, and it; None for what there is not."""
        part = layer.parts.get(name)
        module = None if part is None else MODULES[type(part)](part, width)
        return norm(layer.norm, slots.get(f"{name}_norm")), norm(layer.norm, slots.get(f"{name}_norm_after")), module


def linears(block: Block) -> dict[str, Matrix]:
    """The matrices of a block by dotted name, in the order in which they compute: mixer.query ... feed_forward.down."""
    find: Callable[[str], Any] = block.get_submodule
    return {name: find(name) for name in block.matrices}


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
        slots = named(config.outer)
        self.embedding = embedding(slots["embedding"])
        self.positions = embedding(slots["positions"]) if config.learned_positions else None
        self.blocks = nn.ModuleList(Block(layer, config.width) for layer in config.layers)
        self.final_norm = norm(config.final_norm, slots["final_norm"])
        self.head = dense(slots["head"])
        if config.tied:
            self.head.weight = self.embedding.weight
        mixers = [layer.mixer for layer, _ in config.distinct]
        self.rotaries = nn.ModuleDict()
        for rotary in (mixer.rotary for mixer in mixers if mixer.rotary is not None):
            self.rotaries[key_of(rotary)] = Rotary(*rotary, config.context)
        self.windows = tuple(dict.fromkeys(mixer.state(config.width).window for mixer in mixers))

    def forward(
        self,
        tokens_BT: Tensor,
        inputs: Inputs | None = None,
        *,
        read: Reader = logits,
        visit: Visit = plain,
        layers: slice = ALL,
    ) -> Tensor:
        """Logits of the next token at each place, (B, T, V), or what `read` makes of the last layer.

        Args:
            tokens_BT: token numbers, int64; what the blocks before gave, (B, T, C), when `layers` begins later than the first.
            inputs: facts about the tokens; each row is one document from position 0 when not given. A cache in it is written
                to: call its `advance` afterwards.
            read: sees the normalised last layer and the head.
            visit: goes through one block.
            layers: blocks to go through; when the last is not among them, what it would read comes out.
        """
        inputs = self.prepared(tokens_BT, inputs)
        x_BTC = self.embed(tokens_BT, inputs) if layers.start is None else tokens_BT
        for number, block in self.numbered(layers):
            x_BTC, inputs = visit(number, block, x_BTC, inputs)
        return read(self.final_norm(x_BTC), self.head) if layers.stop is None else x_BTC

    def numbered(self, layers: slice = ALL) -> Iterator[tuple[int, Block]]:
        """Blocks with their numbers."""
        blocks: Any = self.blocks
        return islice(enumerate(blocks), layers.start, layers.stop)

    def matrices(self) -> Iterator[tuple[str, Matrix]]:
        """The matrices of all blocks with their dotted names, in order of computation."""
        for number, block in self.numbered():
            for name, matrix in linears(block).items():
                yield f"blocks.{number}.{name}", matrix

    def prepared(self, tokens_BT: Tensor, inputs: Inputs | None = None) -> Inputs:
        """The inputs with what all blocks share of them: positions, rotary tables, masks."""
        inputs, length = inputs or Inputs(), tokens_BT.shape[1]
        if inputs.masks:
            return inputs
        if inputs.cache is not None:
            rows = inputs.rows or inputs.cache.rows(length)
            inputs = replace(inputs, rows=rows, positions_BT=rows.positions(length))
        slots = length if inputs.cache is None else inputs.cache.capacity
        tables: Any = self.rotaries
        where = (None, slice(length)) if inputs.positions_BT is None else inputs.positions_BT
        return replace(
            inputs,
            rotaries={key: rotary.upto(slots)[where] for key, rotary in tables.items()},
            masks={window: inputs.mask(tokens_BT, window) for window in self.windows},
        )

    def embed(self, tokens_BT: Tensor, inputs: Inputs) -> Tensor:
        """What the first block reads, (B, T, C)."""
        x_BTC = self.embedding(tokens_BT)
        if self.positions is None:
            return x_BTC
        places = inputs.positions_BT
        if places is None:
            places = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        return x_BTC + self.positions(places)

    def initialise(self, seed: int = 0) -> Transformer:
        """Draw weights as GPT-2 did: normal with deviation 0.02, the projections into the residual stream scaled down by
        the root of twice the number of layers. Each tensor's draw depends on the seed and its name alone: not on the device, on
        other tensors, or on which of several machines holds it.
        """
        with torch.no_grad():
            for slot in self.config.slots():
                if not slot.shares:
                    module: Any = self.get_submodule(slot.name)
                    module.weight.copy_(drawn(slot.draw, slot.shape, f"{seed}/{slot.name}", len(self.blocks)))
                    if slot.bias:
                        module.bias.zero_()
        return self


def drawn(draw: Draw, shape: tuple[int, ...], seed: str, layers: int) -> Tensor:
    """The first values of a parameter, float32."""
    if draw in ("ones", "zeros"):
        return torch.full(shape, float(draw == "ones"))
    generator = torch.Generator().manual_seed(int.from_bytes(sha256(seed.encode()).digest()[:7]))
    deviation = 0.02 / math.sqrt(2 * layers) if draw == "into_stream" else 0.02
    return torch.randn(shape, generator=generator) * deviation
