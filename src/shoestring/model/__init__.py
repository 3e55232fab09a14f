"""What a language model is: configuration, parts, decoding state, cost, checkpoints in and out."""

from shoestring.architecture import ModelConfig, RopeScaling
from shoestring.choice import Choice, Table
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
from shoestring.technique import Technique

__all__ = [
    "TABLES",
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


_SAVES = ("memory", "storage")

TABLES: tuple[Table[None], ...] = (
    Table(
        "ModelConfig.mixer",
        Choice("attention", None, "exact softmax attention in PyTorch's fused kernels", "A1", "2205.14135", ("memory",)),
    ),
    Table(
        "ModelConfig.kv_heads",
        Choice("fewer than heads", None, "query heads share keys and values", "A4", "2305.13245", ("memory", "computation")),
    ),
    Table(
        "ModelConfig.position",
        Choice("rope", None, "queries and keys turn by an angle that grows with position", "P2", "2104.09864"),
        Choice("learned", None, "a vector learned for each position", "P1"),
        Choice("none", None, "order is known from the causal mask alone", "P1", "2305.19466"),
    ),
    Table(
        "ModelConfig.rope_scaling",
        Choice("llama3", None, "stretches slow rotations, so that longer texts need little training", "P2", "2407.21783"),
    ),
    Table(
        "ModelConfig.feed_forward",
        Choice("swiglu", None, "three matrices, one of them a gate", "", "2002.05202"),
        Choice("gelu", None, "two matrices, as in GPT-2", "", "1606.08415"),
    ),
    Table(
        "ModelConfig.norm",
        Choice("rmsnorm", None, "divides by the root mean square", "", "1910.07467", ("computation",)),
        Choice("layernorm", None, "subtracts the mean, divides by the deviation", "", "1607.06450"),
    ),
    Table(
        "ModelConfig.head_norm",
        Choice("true", None, "queries and keys are normalised per head: attention stays bounded", "T1", "2302.05442"),
    ),
    Table("ModelConfig.tied", Choice("true", None, "the head is the embedding's transpose", "", "1608.05859", _SAVES)),
    Table("PackedLinear", Choice("packed", None, "weights of 2 to 8 bits in memory and on disk", "Q1", "", _SAVES)),
)
