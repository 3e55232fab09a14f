"""Tiny tokenizers of each kind, with no training: a vocabulary written down."""

from __future__ import annotations

import json
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'<>|/_=\u00e9"
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def _finished(made: tokenizers.Tokenizer) -> dict[str, Any]:
    made.add_special_tokens(SPECIAL)
    return json.loads(made.to_str())


def byte_level() -> dict[str, Any]:
    """GPT-2's kind, with a few merges."""
    vocab = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("t", "h"), ("th", "e"), ("\u0120", "th"), ("i", "n")]
    for first, second in merges:
        vocab[first + second] = len(vocab)
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return _finished(made)


def sentencepiece(scheme: str = "legacy") -> dict[str, Any]:
    """Llama 2's kind, with bytes for what it does not know; `scheme`: how a space is put before a text."""
    vocab = {token: number for number, token in enumerate(SPECIAL[:3])}
    vocab |= {f"<0x{byte:02X}>": len(SPECIAL[:3]) + byte for byte in range(256)}
    for letter in "\u2581" + LETTERS:
        vocab[letter] = len(vocab)
    merges = [("\u2581", letter) for letter in "abcdefgh"] + [("t", "h"), ("i", "n")]
    for first, second in merges:
        vocab[first + second] = len(vocab)
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if scheme == "legacy":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return _finished(made)


def metaspace(scheme: str) -> dict[str, Any]:
    """T5's kind: Unigram, whose words hold the special tokens too."""
    pieces = [(token, 0.0) for token in SPECIAL[:3]] + [(letter, -3.0) for letter in "\u2581" + LETTERS]
    pieces += [("\u2581the", -2.0), ("th", -2.0), ("in", -2.5)]
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return _finished(made)


def word_piece() -> dict[str, Any]:
    """BERT's kind."""
    vocab = {token: number for number, token in enumerate(SPECIAL[:3])}
    for letter in LETTERS:
        vocab[letter] = len(vocab)
        vocab["##" + letter] = len(vocab)
    made = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return _finished(made)


KINDS = {
    "byte-level": byte_level(),
    "legacy": sentencepiece(),
    "fallback-first": sentencepiece("first"),
    "fallback-always": sentencepiece("always"),
    "fallback-never": sentencepiece("never"),
    "metaspace-first": metaspace("first"),
    "metaspace-always": metaspace("always"),
    "metaspace-never": metaspace("never"),
    "word-piece": word_piece(),
}
