"""What a language model is: configuration, parts, decoding state, cost, checkpoints in and out."""

from shoestring.model.cache import Cache
from shoestring.model.checkpoint import load, load_model, load_tokenizer, read_config, save, write
from shoestring.model.config import ModelConfig, RopeScaling
from shoestring.model.fetch import fetch
from shoestring.model.linear import PackedLinear, linears
from shoestring.model.transformer import Block, Transformer

__all__ = [
    "Block",
    "Cache",
    "ModelConfig",
    "PackedLinear",
    "RopeScaling",
    "Transformer",
    "fetch",
    "linears",
    "load",
    "load_model",
    "load_tokenizer",
    "read_config",
    "save",
    "write",
]
