"""What a language model is: configuration, parts, decoding state, cost, checkpoints in and out."""

from shoestring.model.cache import Cache
from shoestring.model.config import ModelConfig, RopeScaling
from shoestring.model.linear import PackedLinear, linears
from shoestring.model.transformer import Block, Transformer

__all__ = ["Block", "Cache", "ModelConfig", "PackedLinear", "RopeScaling", "Transformer", "linears"]
