"""How a model adapts: low-rank adapters, conversations to learn from, adapter files that PEFT opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.lazy import lazily

if TYPE_CHECKING:
    from shoestring.technique import Technique
    from shoestring.tune.adapter import LoRALinear, adapters, add_lora, merge, trainable_parameters
    from shoestring.tune.chat import Conversation, encode
    from shoestring.tune.files import load_adapter, merge_adapter, save_adapter
    from shoestring.tune.instructions import Conversations, holds_messages, read_messages
    from shoestring.tune.lora import LoRA

    TECHNIQUES: tuple[type[Technique], ...]

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

__all__ = [
    "TECHNIQUES",
    "VERSION",
    "Conversation",
    "Conversations",
    "LoRA",
    "LoRALinear",
    "adapters",
    "add_lora",
    "encode",
    "holds_messages",
    "load_adapter",
    "merge",
    "merge_adapter",
    "read_messages",
    "save_adapter",
    "trainable_parameters",
]

__getattr__ = lazily(__name__, __file__, TECHNIQUES=("LoRA",))
