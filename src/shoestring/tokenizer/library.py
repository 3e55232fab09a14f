"""The `tokenizers` library behind one interface: an object for each way to encode, so that threads share nothing that changes."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from shoestring.errors import FileError, shown


class Library:
    """One tokenizer in the `tokenizers` library.

    Attributes:
        prefixes: a space is put before a text ("\u2581" of SentencePiece), and `joined` leaves it out.
        careful: special tokens are looked for in the normalized text, so that "<\uff53>" or "<S>" may become one.
    """

    def __init__(self, record: Mapping[str, Any], where: str) -> None:
        """`where` names the file in an error; nothing is built yet."""
        self._record, self._where = record, where
        self._joined = _without_prefix(record)
        self._made: dict[tuple[bool, bool], Any] = {}
        self._lock = threading.Lock()
        self.prefixes: bool = self._joined != record
        self._first_only = _holds(record.get("pre_tokenizer"), "prepend_scheme", "first")
        # Tokens that are looked for in the normalized text don't begin it anew.
        by_normalizer = self._joined["normalizer"] != record.get("normalizer")
        added = record.get("added_tokens") or []
        self.careful: bool = bool(record.get("normalizer")) and any(t.get("special") and t.get("normalized") for t in added)
        self._within = {token["id"] for token in added if by_normalizer and token.get("normalized")}

    def joins(self, token: int | None) -> bool:
        """Whether a text that follows on an added token, or on other text when None, has to be encoded as `joined`."""
        return self.prefixes and (token is None or self._first_only or token in self._within)

    def __reduce__(self) -> tuple[type[Library], tuple[Mapping[str, Any], str]]:
        return Library, (self._record, self._where)

    def encode(self, texts: Sequence[str], special: bool, joined: bool = False) -> list[list[int]]:
        """The ids of texts; with `special`, special tokens spelled out count; `joined` texts follow on another."""
        if not texts:
            return []
        made = self._object(special, joined)
        with _calling(self._where, "encode with it"):
            if len(texts) == 1:
                return [made.encode(texts[0], add_special_tokens=False).ids]
            return [encoding.ids for encoding in made.encode_batch(texts, add_special_tokens=False)]

    def places(self, text: str, special: Mapping[str, int]) -> list[tuple[int, int, int]]:
        """Where a text spells out special tokens: (start, stop, id), with the blanks that such a token takes in."""
        made = self._object(True, False)
        with _calling(self._where, "encode with it"):
            encoding = made.encode(text, add_special_tokens=False)
        found = [(*place, number) for number, place in zip(encoding.ids, encoding.offsets) if number in special.values()]
        return [place for place in found if special.get(text[place[0] : place[1]].strip()) == place[2]]

    def decode(self, tokens: Sequence[int], special: bool) -> str:
        """The text of some ids."""
        made = self._object(False, False)
        with _calling(self._where, "decode with it"):
            return str(made.decode(tokens, skip_special_tokens=not special))

    def _object(self, special: bool, joined: bool) -> Any:
        """The library's tokenizer for one way to encode; made once."""
        key = special, joined and self.prefixes
        with self._lock:
            if key not in self._made:
                self._made[key] = self._build(self._joined if key[1] else self._record)
                self._made[key].encode_special_tokens = not special
            return self._made[key]

    def _build(self, record: Mapping[str, Any]) -> Any:
        import tokenizers

        with _calling(self._where, "read it"):
            made = tokenizers.Tokenizer.from_str(json.dumps(record))
            made.no_truncation()
            made.no_padding()
        return made


@contextmanager
def _calling(where: str, doing: str) -> Iterator[None]:
    """A call of the library, which raises plain Exception on what it can't read, and on a panic what is no Exception at all."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        what = shown(str(error) or type(error).__name__, quote=False)
        raise FileError(f"{where}: the tokenizers library can't {doing} ({what}); export the tokenizer again") from error


def _without_prefix(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same tokenizer without the space that it puts before a text."""
    changed = dict(record)
    for part in ("normalizer", "pre_tokenizer"):
        changed[part] = _no_prefix(copy.deepcopy(record.get(part)))
    return changed


def _no_prefix(step: Any) -> Any:
    if not isinstance(step, dict):
        return step
    if step.get("type") == "Prepend":
        return None
    for key, off in (("add_prefix_space", False), ("prepend_scheme", "never")):
        if step.get("type") in ("Metaspace", "ByteLevel") and key in step:
            step[key] = off
    for key in ("normalizers", "pretokenizers"):
        if isinstance(step.get(key), list):
            step[key] = [kept for inner in step[key] if (kept := _no_prefix(inner)) is not None]
    return step


def _holds(step: Any, key: str, value: Any) -> bool:
    """Whether a step of the pipeline, or one within it, has this setting."""
    if not isinstance(step, dict):
        return False
    return step.get(key) == value or any(_holds(inner, key, value) for inner in step.get("pretokenizers") or [])
