"""Byte-level BPE by `tiktoken`, where its ids must equal those of the `tokenizers` library.

tiktoken joins any two neighbours whose concatenation is a token, lowest id first, and takes a piece that is a token whole;
`tokenizers` joins the listed merges in their order. Both give the same ids when
  (1) ids rise along the merges, so that both join in the same order, and
  (2) each token that a merge makes is what its own bytes merge to.
Why (2) is enough: what the bytes of a token merge to does not depend on what stands around them as long as no merge crosses
their border; so the last join before the token appears is the same one everywhere, and it is the listed one.
Both are checked when a tokenizer is first used. Three kinds of text are left to `tokenizers`: with a byte that the vocabulary
lacks, with an added token spelled out, and with a very long run of blanks (tiktoken's regular expressions overflow there).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from shoestring.tokenizer.bytelevel import TO_BYTE, to_bytes

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Digits one by one, before GPT-2's expression sees the rest: a digit ends the text for its look-ahead.
GPT2_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_RUSTBPE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|"
_RUSTBPE_OTHERS = r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
SAME_IN_BOTH = frozenset(
    {
        GPT2,
        _LETTERS + r"\p{N}{1,3}" + _OTHERS,  # Llama 3
        _LETTERS + r"\p{N}" + _OTHERS,  # Qwen 2
        _LETTERS + r"\p{N}+" + _OTHERS,
        *(_RUSTBPE + digits + _RUSTBPE_OTHERS for digits in (r"\p{N}", r"\p{N}{1,2}", r"\p{N}{1,3}", r"\p{N}+")),
    }
)
"""Expressions that cover every text and that both libraries' engines read alike (tests hold this)."""

_LONG_RUN = re.compile(r"\s{2000}")


class Fast:
    """tiktoken for one tokenizer, and which texts it may take."""

    def __init__(self, ranks: dict[bytes, int], pattern: str, missing: bytes, added: Sequence[Mapping[str, Any]]) -> None:
        """`missing`: single bytes without a token; `added`: the tokenizer's added tokens."""
        import tiktoken

        self._missing = missing
        always = [token["content"] for token in added if not token["special"]]
        self._always = _spelled(always)
        self._ever = _spelled([token["content"] for token in added])
        special = [token for token in added if token["special"]]
        bare = not any(token.get(flag) for token in special for flag in ("lstrip", "rstrip", "single_word"))
        longest_first = sorted((token["content"] for token in special), key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if special and bare else None
        # tiktoken wants all single bytes; those that the vocabulary lacks get ids that `takes` keeps from being used.
        beyond = max(max(ranks.values(), default=0), max((token["id"] for token in added), default=0)) + 1
        filled = ranks | {bytes([byte]): beyond + i for i, byte in enumerate(missing)}
        self._encoding = tiktoken.Encoding("shoestring", pat_str=pattern, mergeable_ranks=filled, special_tokens={})

    def takes(self, text: str, special: bool) -> bool:
        """Whether tiktoken gives the ids of `tokenizers` for this text."""
        spelled = self._ever if special else self._always
        if spelled is not None and spelled.search(text):
            return False
        if self._missing:
            data = text.encode("utf-8")
            if len(data.translate(None, self._missing)) != len(data):
                return False
        return _LONG_RUN.search(text) is None

    def cut(self, text: str) -> list[str] | None:
        """A text at the special tokens that it spells out: text, token, text, ... ; None when `tokenizers` has to find them."""
        if self._special is None or (self._always is not None and self._always.search(text)):
            return None
        return self._special.split(text)

    def encode(self, text: str) -> list[int]:
        """The ids of a text that `takes` allows."""
        return list(self._encoding.encode_ordinary(text))

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of many such texts, with a thread per core."""
        threads = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        if threads == 1 or len(texts) < 2:
            return [self.encode(text) for text in texts]
        return list(self._encoding.encode_ordinary_batch(texts, num_threads=threads))


def fast_encoder(record: Mapping[str, Any]) -> Fast | None:
    """tiktoken for a tokenizer.json, or None when equal ids are not certain."""
    pattern = _pattern(record)
    model = record["model"]
    plain = model.get("type") == "BPE" and not any(
        model.get(key) for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    )
    if pattern is None or not plain or record.get("normalizer") is not None:
        return None
    vocab: dict[str, int] = model["vocab"]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    merges: list[tuple[str, str]] = [(first, second) for first, second in pairs]
    made = [first + second for first, second in merges]
    ids = [vocab[token] for token in made]
    if any(earlier > later for earlier, later in pairwise(ids)):
        return None
    if model.get("ignore_merges"):
        singles = set(TO_BYTE) | set(made) | {token["content"] for token in record.get("added_tokens") or []}
        if not vocab.keys() <= singles:
            return None
    if not _merge_to_themselves(vocab, merges, made):
        return None
    ranks = {bytes([byte]): vocab[character] for character, byte in TO_BYTE.items() if character in vocab}
    for token, number in zip(made, ids):
        data = to_bytes(token)
        if data is None:
            return None
        ranks[data] = number
    missing = bytes(byte for byte in range(256) if bytes([byte]) not in ranks)
    return Fast(ranks, pattern, missing, record.get("added_tokens") or [])


def _merge_to_themselves(vocab: dict[str, int], merges: list[tuple[str, str]], made: list[str]) -> bool:
    """Condition (2), asked of `tokenizers` itself without any pre-tokenizer: 0.2 s for 49,000 tokens."""
    import tokenizers

    bare = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    encoded = bare.encode_batch(made, add_special_tokens=False)
    return all(encoding.ids == [vocab[token]] for encoding, token in zip(encoded, made))


def _pattern(record: Mapping[str, Any]) -> str | None:
    """The expression that cuts a text as the pre-tokenizer does; None for one that is not known to have such an expression."""
    step = record.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", []) if step.get("type") == "Sequence" else [step]
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    own_regex = last.get("use_regex", True)
    if len(steps) == 1:
        return GPT2 if own_regex else None
    first = steps[0]
    if len(steps) > 2:
        return None
    if first.get("type") == "Digits" and first.get("individual_digits") and own_regex:
        return GPT2_DIGITS
    if first.get("type") == "Split" and first.get("behavior") == "Isolated" and not first.get("invert") and not own_regex:
        expression = first["pattern"].get("Regex")
        return expression if expression in SAME_IN_BOTH else None
    return None


def _spelled(tokens: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None
