"""How a model adapts: low-rank adapters, conversations to learn from, adapter files that PEFT opens."""

from shoestring.technique import Technique
from shoestring.tune.adapter import LoRALinear, adapters, add_lora, merge, trainable_parameters
from shoestring.tune.chat import Conversation, encode
from shoestring.tune.files import load_adapter, merge_adapter, save_adapter
from shoestring.tune.instructions import Conversations, holds_messages, read_messages
from shoestring.tune.lora import LoRA

__all__ = [
    "TECHNIQUES",
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

TECHNIQUES: tuple[type[Technique], ...] = (LoRA,)
