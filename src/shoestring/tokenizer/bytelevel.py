"""Byte-level BPE: the printable alphabet for bytes, and a `tokenizer.json` from tiktoken-style ranks.

Byte-level BPE (Radford et al. 2019, GPT-2) writes each byte as one printable character, so that a vocabulary is text: bytes
that are printable Latin-1 stand for themselves, the 68 others for the characters from U+0100 on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any


def _alphabet() -> dict[int, str]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


TO_TEXT = _alphabet()
"""The character that stands for each byte."""
TO_BYTE = {character: byte for byte, character in TO_TEXT.items()}
"""The byte that each character stands for."""


FALLBACK = re.compile("<0x[0-9A-Fa-f]{2}>")
"""SentencePiece's tokens for single bytes."""


def to_bytes(token: str) -> bytes | None:
    """The bytes of a token written in the byte alphabet; None when a character is not of it."""
    try:
        return bytes([TO_BYTE[character] for character in token])
    except KeyError:
        return None


def to_text(data: bytes) -> str:
    """Bytes written in the byte alphabet."""
    return "".join([TO_TEXT[byte] for byte in data])


def clean(text: str) -> str:
    """The text with lone surrogates, which UTF-8 can't hold, as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_byte_level(record: Mapping[str, Any]) -> bool:
    """Whether a tokenizer's tokens are bytes in the byte alphabet: its decoder says so."""
    return (record.get("decoder") or {}).get("type") == "ByteLevel"


def byte_table(record: Mapping[str, Any], ids: Mapping[str, int], vocabulary: int) -> list[bytes]:
    """The bytes of each id; empty where an id has no token."""
    added = {token["content"] for token in record.get("added_tokens") or []}
    byte_level = is_byte_level(record)
    prefix = (record["model"].get("continuing_subword_prefix") or "") if record["model"].get("type") == "WordPiece" else ""
    table = [b""] * vocabulary
    for token, number in ids.items():
        data = to_bytes(token) if byte_level and token not in added else None
        if data is None and not byte_level and token not in added:
            data = _sentencepiece_bytes(token, prefix)
        table[number] = token.encode("utf-8", "replace") if data is None else data
    return table


def _sentencepiece_bytes(token: str, prefix: str) -> bytes:
    """The bytes of a token of SentencePiece (`▁` is a space, `<0x0A>` a byte) or WordPiece (`##` joins to the word before)."""
    if FALLBACK.fullmatch(token):
        return bytes([int(token[3:5], 16)])
    if prefix and token.startswith(prefix):
        token = token[len(prefix) :]
    return token.replace("\u2581", " ").encode("utf-8")


def merges_from_ranks(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge that makes each token of two bytes or more, in order of rank.

    Merging a token's bytes with the merges of lower rank only must leave exactly two parts: these are what its merge joins.

    Raises:
        ValueError: when a token can't be reached so; such ranks did not come from BPE training.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            joined = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
            lowest = min(joined)
            if lowest >= rank:
                raise ValueError(f"token {token!r} of rank {rank} can't be made by merges of lower rank")
            at = joined.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        merges.append((parts[0], parts[1]))
    return merges


def record_from_ranks(ranks: Mapping[bytes, int], pattern: str, special: Sequence[str]) -> dict[str, Any]:
    """A `tokenizer.json` record for tiktoken-style ranks; special tokens take the ids after the largest rank.

    Raises:
        ValueError: when a single byte is missing, a rank occurs twice, or the ranks did not come from BPE training.
    """
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(f"ranks lack {len(missing)} of the 256 single bytes, the first of them {missing[0]:#04x}")
    if len(set(ranks.values())) != len(ranks):
        raise ValueError("two tokens have the same rank")
    vocab = {to_text(token): rank for token, rank in sorted(ranks.items(), key=lambda item: item[1])}
    merges = [[to_text(first), to_text(second)] for first, second in merges_from_ranks(ranks)]
    start = max(ranks.values()) + 1
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    added = [{"id": start + i, "content": name} | plain for i, name in enumerate(special)]
    return tokenizer_json(vocab, merges, added, {"type": "Sequence", "pretokenizers": [split, byte_level]})


def tokenizer_json(
    vocab: dict[str, int],
    merges: list[list[str]],
    added: list[dict[str, Any]],
    pre_tokenizer: dict[str, Any],
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """The `tokenizer.json` of a byte-level BPE.

    Args:
        merges: pairs of token texts, first merge first. added: the special tokens. pre_tokenizer: how text is cut into words.
        ignore_merges: a word that is a token is taken whole (Llama 3).
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": vocab,
            "merges": merges,
        },
    }
