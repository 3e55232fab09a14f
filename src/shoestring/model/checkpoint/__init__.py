"""Checkpoints in and out: Hugging Face folders of several families, our own, GGUF files."""

from shoestring.model.checkpoint.origin import Origin
from shoestring.model.checkpoint.read import load, load_adapted, load_model, load_tokenizer, packed_bits, read_config, stored
from shoestring.model.checkpoint.write import facts, save, write

__all__ = [
    "Origin",
    "facts",
    "load",
    "load_adapted",
    "load_model",
    "load_tokenizer",
    "packed_bits",
    "read_config",
    "save",
    "stored",
    "write",
]
