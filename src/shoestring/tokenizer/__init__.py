"""Text to token ids and back, from a `tokenizer.json`: the same ids as the `tokenizers` library, faster.

Byte-level BPE (GPT-2, Llama 3, Qwen 2, SmolLM2 and what `rustbpe` trains) is encoded by `tiktoken`, after a check that both
must give equal ids; everything else, and the rare text that tiktoken can't do exactly, by `tokenizers` itself.
`Tokenizer.backend` says which one runs. Neither is imported before the first text is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shoestring.artifact import write_whole
from shoestring.errors import FileError
from shoestring.tokenizer import bytelevel, reading, template
from shoestring.tokenizer import record as names
from shoestring.tokenizer.chat import Rendered, rendered
from shoestring.tokenizer.fast import Fast, fast_encoder
from shoestring.tokenizer.library import Library
from shoestring.tokenizer.prefix import prefix
from shoestring.tokenizer.stream import TextStream, text_after

__all__ = ["Rendered", "TextStream", "Tokenizer"]

_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>")
"""Names that end a document, in order of preference, for a tokenizer whose configuration names none."""

ANSWER_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|end|>",
    "<|return|>",
    "</s>",
    "<eos>",
)
"""Names that end a turn where they are special: ChatML (Qwen, SmolLM), GPT-2, Llama 2 to 4, Gemma, OpenChat, Phi, gpt-oss."""


class Tokenizer:
    """A tokenizer, as a `tokenizer.json` and the `tokenizer_config.json` beside it describe it.

    Attributes:
        vocabulary: number of ids: the largest id plus one.
        end: the id that ends a document.
        start: the id that stands before a text with nothing before it, where one is needed: BOS, or `end` without one.
        prefix: the ids that stand before every text by the tokenizer's own rule, usually BOS or none.
        special: the ids of special tokens by name.
        unknown: the id for what the vocabulary lacks, None for a tokenizer with bytes.
        ends: the ids that end an answer: `end`, the usual ends of a turn where they are special tokens, and what the files of
            a model add when `model.load_tokenizer` opens it.
    """

    def __init__(self, record: dict[str, Any], config: dict[str, Any] | None = None, where: str = "tokenizer") -> None:
        """Wrap the parsed `tokenizer.json` and `tokenizer_config.json`; `where` names the file in an error.

        Raises:
            FileError: when it isn't a tokenizer, or names no token that ends a document.
        """
        self.record, self.config, self._where = record, dict(config or {}), where
        found = names.tokens(record, where)
        self._ids, self.special, self.vocabulary = found.ids, found.special, found.vocabulary
        self._library = Library(record, where)
        self.end: int = self._find_end()
        bos = self._ids.get(self._named("bos_token") or "")
        self.start: int = self.end if bos is None else bos
        self.prefix: tuple[int, ...] = prefix(record, self.config, bos, self.vocabulary, where)
        self.unknown: int | None = names.unknown(record["model"], self._ids)
        self.ends: frozenset[int] = frozenset({self.end, *(self.special[name] for name in ANSWER_ENDS if name in self.special)})

    # ------------------------------------------------------------ encoding

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text; adds no BOS or EOS. With `special`, special tokens that the text spells out are recognised."""
        text = bytelevel.clean(text)
        fast = self._fast
        if fast is not None and fast.takes(text, special):
            return fast.encode(text)
        if special and fast is not None and (pieces := fast.cut(text)) is not None:
            ids = [[self.special[piece]] if place % 2 else self.encode(piece) for place, piece in enumerate(pieces)]
            return [number for piece in ids for number in piece]
        return self._library.encode([text], special)[0]

    def prompt(self, text: str) -> list[int]:
        """The ids of a text as a model should see it from its beginning: `prefix` and the text; special tokens in it are text.

        Never empty: where there is nothing to see, the end of a document stands before what comes.
        """
        return [*self.prefix, *self.encode(text)] or [self.end]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts, with a thread per core."""
        texts = [bytelevel.clean(text) for text in texts]
        fast = self._fast
        if fast is None:
            return self._library.encode(texts, special=False)
        easy = [fast.takes(text, special=False) for text in texts]
        encoded = iter(fast.encode_batch([text for text, takes in zip(texts, easy) if takes]))
        hard = iter(self._library.encode([text for text, takes in zip(texts, easy) if not takes], special=False))
        return [next(encoded) if takes else next(hard) for takes in easy]

    @property
    def backend(self) -> str:
        """The library that encodes: "tiktoken" or "tokenizers"."""
        return "tokenizers" if self._fast is None else "tiktoken"

    def token_id(self, token: str) -> int | None:
        """The id of a token by its name in the vocabulary, such as "<|im_end|>"; None when there is none."""
        return self._ids.get(token)

    # ------------------------------------------------------------ decoding

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD. Special tokens are left out unless `special`."""
        numbers = [int(token) for token in tokens]
        if self.byte_level:
            return b"".join(self.token_bytes(number, special) for number in numbers).decode("utf-8", errors="replace")
        known = [number for number in numbers if 0 <= number < self.vocabulary]
        return self._library.decode(known, special)

    def answer(self, before: Sequence[int], tokens: Sequence[int]) -> str:
        """The text of an answer to a prompt: what both read as, less what the prompt reads as; a first space stays.

        The pieces of a `TextStream`, joined, are this text.
        """
        return text_after(self, before, tokens)

    def token_bytes(self, token: int, special: bool = True) -> bytes:
        """The bytes that one id stands for; nothing for an id without a token, and for a special one unless `special`."""
        if not special and token in self._special_ids:
            return b""
        return self._table[token] if 0 <= token < self.vocabulary else b""

    def byte_lengths(self) -> np.ndarray:
        """UTF-8 bytes that each id stands for, int64 (vocabulary,); special tokens count 0."""
        return np.array([0 if i in self._special_ids else len(b) for i, b in enumerate(self._table)], dtype=np.int64)

    # ------------------------------------------------------------ chat

    def chat(self, messages: Sequence[template.Message], open_answer: bool = True, **given: Any) -> str:
        """A conversation as the text that the model was trained on; `open_answer` ends it where the assistant begins.

        The chat template of the tokenizer's configuration is used (Jinja, sandboxed); without one ChatML, where the
        vocabulary has its tokens, and "User:"/"Assistant:" lines otherwise.

        Args:
            given: what else a template may read, such as `tools`, `documents`, `enable_thinking`.

        Raises:
            FileError: when the template can't be rendered with these messages.
        """
        return self.render(messages, open_answer, **given).text

    def chat_tokens(self, messages: Sequence[template.Message], open_answer: bool = True, **given: Any) -> list[int]:
        """A conversation as ids: special tokens of the chat form are real, those that a message spells out are text.

        Equal to transformers' `apply_chat_template` where no message spells one out. Arguments and errors are those of `chat`.
        """
        return self.render(messages, open_answer, **given).tokens()

    def render(self, messages: Sequence[template.Message], open_answer: bool = True, **given: Any) -> Rendered:
        """A conversation with its text, ids of any part of it, and what the assistant says where the template tells.

        To learn an answer, render up to it with `open_answer`, render with it, and take `tokens(len(before.text))` of the
        latter; or take `masked()`, when it is not None. Arguments and errors are those of `chat`.
        """
        return rendered(self, messages, open_answer, given)

    def check_chat(self) -> None:
        """Render one question: a template that can't be rendered is said when a model is loaded, not when somebody asks.

        Raises:
            FileError: as `chat`.
        """
        self.chat([{"role": "user", "content": "Hi"}])

    def write_chat(
        self, messages: Sequence[template.Message], open_answer: bool, given: Mapping[str, Any], marks: tuple[str, str]
    ) -> tuple[str, bool]:
        """A conversation as text, with `marks` around what `{% generation %}` blocks hold, and whether the template has these."""
        source = template.chosen(self.config.get("chat_template"), given.get("tools"), self._where)
        if source is None:
            chatml = "<|im_start|>" in self._ids and "<|im_end|>" in self._ids
            return template.plain(messages, open_answer, chatml), False
        tokens = {entry: token for entry in self.config if entry.endswith("_token") and (token := self._named(entry))}
        return template.render(source, messages, open_answer, tokens | dict(given), marks, self._where)

    def special_places(self, text: str) -> list[tuple[int, int, int]]:
        """Where special tokens are spelled out: (start, stop, id), in order."""
        return self._library.places(text, self.special)

    def encode_after(self, text: str, token: int | None = None) -> list[int]:
        """The ids of a text that follows on another: as `encode`, without the space that begins a text where there is one.

        Args:
            token: the special token that it follows on, if it does: a text begins anew there, as in the `tokenizers` library.
        """
        if not self._library.joins(token):
            return self.encode(text)
        return self._library.encode([bytelevel.clean(text)], special=False, joined=True)[0]

    def takes_whole(self, start: int) -> bool:
        """Whether a chat's text from a place on can be encoded as it is, or has to be cut at its special tokens first."""
        return not self._library.careful and (start == 0 or not self._library.prefixes)

    # ------------------------------------------------------------ files

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, as `transformers.AutoTokenizer` opens them."""
        end = next((token for token, number in self._ids.items() if number == self.end), None)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end} | self.config
        write_whole(Path(folder) / "tokenizer.json", reading.written(self.record, separators=(",", ":")))
        write_whole(Path(folder) / "tokenizer_config.json", reading.written(config, indent=1) + "\n")

    @classmethod
    def open(cls, path: Path | str) -> Tokenizer:
        """Open a `tokenizer.json` (or .json.xz), or a folder that holds one, with its `tokenizer_config.json` if there is one.

        Raises:
            FileError: missing, unreadable, or not a tokenizer.
        """
        record, config, where = reading.read(path)
        return cls(record, config, str(where))

    @classmethod
    def from_ranks(
        cls, ranks: Mapping[bytes, int], pattern: str, special: Sequence[str], config: dict[str, Any] | None = None
    ) -> Tokenizer:
        """A byte-level BPE from tiktoken-style ranks (bytes -> id, in order of merging), such as `rustbpe` trains.

        Args:
            ranks: every token's bytes with its id; all 256 single bytes among them.
            pattern: the regular expression that cuts a text into pieces before merging.
            special: names of special tokens; their ids follow the largest rank, and the first one ends a document
                unless `config` names an `eos_token`.
        """
        record = bytelevel.record_from_ranks(ranks, pattern, special)
        return cls(record, {"eos_token": special[0]} | (config or {}) if special else config, "from_ranks")

    # ------------------------------------------------------------ inside

    @cached_property
    def spelled(self) -> re.Pattern[str]:
        """What spells a special token out, the longest first."""
        return re.compile("|".join(map(re.escape, sorted(self.special, key=len, reverse=True))) or "(?!)")

    @cached_property
    def byte_level(self) -> bool:
        """Whether tokens are bytes in the byte alphabet."""
        return bytelevel.is_byte_level(self.record)

    @cached_property
    def byte_tokens(self) -> frozenset[int]:
        """The ids of SentencePiece's single bytes, such as `<0x0A>`."""
        return frozenset(number for token, number in self._ids.items() if bytelevel.FALLBACK.fullmatch(token))

    @cached_property
    def _fast(self) -> Fast | None:
        try:
            return fast_encoder(self.record)
        except (LookupError, TypeError, ValueError, AttributeError):  # not well made: the library says what is wrong with it
            return None

    @cached_property
    def _table(self) -> list[bytes]:
        return bytelevel.byte_table(self.record, self._ids, self.vocabulary)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.special.values())

    def _named(self, entry: str) -> str | None:
        """A token that the configuration names: by a text, or by an object with `content`."""
        value = self.config.get(entry)
        value = value.get("content") if isinstance(value, dict) else value
        return value if isinstance(value, str) else None

    def _find_end(self) -> int:
        named = self._named("eos_token")
        for name in ([named] if named else []) + list(_ENDS):
            if name in self._ids:
                return self._ids[name]
        allowed = f'"eos_token" in tokenizer_config.json beside it (one of {", ".join(list(self.special)[:8]) or "its tokens"})'
        raise FileError(f"{self._where}: no token ends a document; set {allowed}")
