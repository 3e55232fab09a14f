"""The tokenizer inside a GGUF file, as the `tokenizer.json` and `tokenizer_config.json` it was made from."""

from __future__ import annotations

from typing import Any

from shoestring.errors import FileError, nearest, shown
from shoestring.model.checkpoint.families.family import Reading
from shoestring.tokenizer import bytelevel
from shoestring.tokenizer.prefix import post_processor

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_GPT2 = {**_BYTES, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _words(digits: str) -> str:
    """The pattern that GPT-4, Llama 3 and Qwen2 share but for the length of a run of digits."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_GPT2],
    "smollm": [_DIGITS, _GPT2],
    "llama-bpe": [_split(_words(r"\p{N}{1,3}")), _BYTES],
    "qwen2": [_split(_words(r"\p{N}")), _BYTES],
}
"""How text is cut before merging, by llama.cpp's name (tokenizer.ggml.pre)."""

BEGINS = frozenset({"llama-bpe"})
"""Of these, those that put BOS before a text where tokenizer.ggml.add_bos_token does not say, as in llama.cpp."""

CONTROL, USER_DEFINED = 3, 4
"""Values of tokenizer.ggml.token_type."""


def build(metadata: Reading) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        FileError: not byte-level BPE, cut in a way that is not known, or lists that contradict each other.
    """
    kind, cut = metadata.text("tokenizer.ggml.model"), metadata.text("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2":
        raise FileError(f"{metadata.file}: tokenizer kind {shown(kind)} is not supported; allowed: gpt2 (byte-level BPE)")
    if cut not in PRE_TOKENIZERS:
        raise FileError(f"{metadata.file}: tokenizer.ggml.pre is {shown(cut)}; {nearest(cut, PRE_TOKENIZERS)}")
    tokens, merges = _texts(metadata, "tokenizer.ggml.tokens"), _texts(metadata, "tokenizer.ggml.merges")
    kinds = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        metadata.refuse("tokenizer.ggml.token_type", kinds, f"it must give a number for each of the {len(tokens):,} tokens")
    known = set(tokens)
    for merge in merges:
        first, _, second = merge.partition(" ")
        if not (first in known and second in known and first + second in known):
            metadata.refuse("tokenizer.ggml.merges", merge, "it must join two tokens to a third")
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL,
        }
        for number, (token, kind) in enumerate(zip(tokens, kinds))
        if kind in (CONTROL, USER_DEFINED)
    ]
    steps = PRE_TOKENIZERS[cut]
    record = bytelevel.tokenizer_json(
        {token: number for number, token in enumerate(tokens)},
        [merge.split(" ", 1) for merge in merges],
        added,
        steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
        ignore_merges=cut == "llama-bpe",
    )
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    if metadata.get("tokenizer.ggml.add_bos_token", cut in BEGINS) and bos is not None and bos < len(tokens):
        record["post_processor"] = post_processor(tokens[bos], bos)
    return record, _config(metadata, tokens)


def _config(metadata: Reading, tokens: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    named = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    for entry, key in named.items():
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if type(number) is int and 0 <= number < len(tokens):
            config[entry] = tokens[number]
    if template := metadata.text("tokenizer.chat_template", ""):
        config["chat_template"] = template
    return config


def _texts(metadata: Reading, key: str) -> list[str]:
    found = metadata.need(key)
    if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
        metadata.refuse(key, found, "it must be a list of texts")
    return list(found)
