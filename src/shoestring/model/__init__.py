"""What a language model is: configuration, parts, decoding state, cost, checkpoints in and out."""

from shoestring.architecture import ModelConfig, RopeScaling
from shoestring.model.cache import Cache
from shoestring.model.checkpoint import (
    Origin,
    load,
    load_adapted,
    load_model,
    load_tokenizer,
    packed_bits,
    read_config,
    save,
    write,
)
from shoestring.model.fetch import fetch
from shoestring.model.inputs import Inputs
from shoestring.model.linear import PackedLinear, linears
from shoestring.model.technique import Pretrained
from shoestring.model.transformer import Block, Transformer, hidden
from shoestring.technique import Choice, Technique

__all__ = [
    "CHOICES",
    "TECHNIQUES",
    "Block",
    "Cache",
    "Inputs",
    "ModelConfig",
    "Origin",
    "PackedLinear",
    "Pretrained",
    "RopeScaling",
    "Transformer",
    "fetch",
    "hidden",
    "linears",
    "load",
    "load_adapted",
    "load_model",
    "load_tokenizer",
    "packed_bits",
    "read_config",
    "save",
    "write",
]

TECHNIQUES: tuple[type[Technique], ...] = (Pretrained,)


def _choice(field: str, name: str, does: str, row: str, paper: str = "", saves: tuple[str, ...] = ()) -> Choice:
    return Choice("model", f"ModelConfig.{field}", name, does, row, paper, saves)


CHOICES: tuple[Choice, ...] = (
    _choice("mixer", "attention", "exact softmax attention in PyTorch's fused kernels", "A1", "2205.14135", ("memory",)),
    _choice("kv_heads", "fewer than heads", "query heads share keys and values", "A4", "2305.13245", ("memory", "computation")),
    _choice("position", "rope", "queries and keys turn by an angle that grows with position", "P2", "2104.09864"),
    _choice("position", "learned", "a vector learned for each position", "P1"),
    _choice("position", "none", "order is known from the causal mask alone", "P1", "2305.19466"),
    _choice("rope_scaling", "llama3", "stretches slow rotations, so that longer texts need little training", "P2", "2407.21783"),
    _choice("feed_forward", "swiglu", "three matrices, one of them a gate", "", "2002.05202"),
    _choice("feed_forward", "gelu", "two matrices, as in GPT-2", "", "1606.08415"),
    _choice("norm", "rmsnorm", "divides by the root mean square", "", "1910.07467", ("computation",)),
    _choice("norm", "layernorm", "subtracts the mean, divides by the deviation", "", "1607.06450"),
    _choice("head_norm", "true", "queries and keys are normalised per head: attention stays bounded", "T1", "2302.05442"),
    _choice("tied", "true", "the head is the embedding's transpose", "", "1608.05859", ("memory", "storage")),
    Choice("model", "PackedLinear", "packed", "weights of 2 to 8 bits in memory and on disk", "Q1", "", ("memory", "storage")),
)
