"""Which tokens end an answer: the tokenizer's own end, and the ends of a turn that chat models use."""

from __future__ import annotations

from shoestring.tokenizer import Tokenizer

TURN_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "</s>", "<|end|>")
"""ChatML (Qwen, SmolLM), GPT-2, Llama 3, Gemma, Llama 2, Phi."""


def stop_tokens(tokenizer: Tokenizer) -> set[int]:
    """The end of a document, and those of the usual turn ends that are special tokens of this tokenizer."""
    return {tokenizer.end} | {tokenizer.special[name] for name in TURN_ENDS if name in tokenizer.special}
