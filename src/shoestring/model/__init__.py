"""What a language model is: configuration, parts, decoding state, cost, checkpoints in and out."""

from typing import Any

from shoestring.architecture import ModelConfig, RopeScaling
from shoestring.architecture.feedforward import FEED_FORWARDS
from shoestring.architecture.flat import POSITIONS
from shoestring.architecture.layer import MIXERS
from shoestring.architecture.norm import NORMS
from shoestring.choice import Choice, Table
from shoestring.model.cache import Cache, Rows
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
from shoestring.model.checkpoint.formats import FORMATS
from shoestring.model.fetch import fetch
from shoestring.model.forms import FORMS, PackedLinear
from shoestring.model.inputs import Inputs
from shoestring.model.technique import Pretrained
from shoestring.model.transformer import Block, Transformer, hidden, linears
from shoestring.technique import Technique

__all__ = [
    "TABLES",
    "TECHNIQUES",
    "VERSION",
    "Block",
    "Cache",
    "Inputs",
    "ModelConfig",
    "Origin",
    "PackedLinear",
    "Rows",
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

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

TECHNIQUES: tuple[type[Technique], ...] = (Pretrained,)


_SAVES = ("memory", "storage")

TABLES: tuple[Table[Any], ...] = (
    MIXERS,
    Table(
        "ModelConfig.kv_heads",
        Choice("fewer than heads", None, "query heads share keys and values", "A4", "2305.13245", ("memory", "computation")),
    ),
    POSITIONS,
    Table(
        "ModelConfig.rope_scaling",
        Choice("llama3", None, "stretches slow rotations, so that longer texts need little training", "P2", "2407.21783"),
    ),
    FEED_FORWARDS,
    NORMS,
    Table(
        "ModelConfig.head_norm",
        Choice("true", None, "queries and keys are normalised per head: attention stays bounded", "T1", "2302.05442"),
    ),
    Table("ModelConfig.tied", Choice("true", None, "the head is the embedding's transpose", "", "1608.05859", _SAVES)),
    FORMS,
    FORMATS,
)
