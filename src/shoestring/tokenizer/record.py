"""Whether a `tokenizer.json` is one, before anything is made of it: its tokens and their ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoestring.errors import FileError, nearest, shown

MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
SLACK = 65_536
"""Ids that a vocabulary may leave unused, beyond as many as it uses."""
DEEPEST = 32
"""Steps within steps of a pipeline."""
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a tokenizer: ids by name, those that are special, the largest id plus one."""

    ids: dict[str, int]
    special: dict[str, int]
    vocabulary: int


def tokens(record: Mapping[str, Any], where: str) -> Tokens:
    """The tokens that a `tokenizer.json` names.

    Raises:
        FileError: names the entry, its value, and what is allowed.
    """
    model = _of(record.get("model"), dict, "model", where)
    kind = model.get("type", "BPE")
    if kind not in MODELS:
        raise FileError(f"{where}: model.type is {shown(kind)}; {nearest(str(kind), MODELS)}")
    if not isinstance(model.get("continuing_subword_prefix") or "", str):
        found = shown(model["continuing_subword_prefix"])
        raise FileError(f"{where}: model.continuing_subword_prefix is {found}; must be a text or null")
    for number, merge in enumerate(_of(model.get("merges") or [], list, "model.merges", where)):
        if not isinstance(merge, (str, list)):
            raise FileError(f"{where}: model.merges[{number}] is {shown(merge)}; must be a pair of tokens")
    for step in _STEPS:
        _check_step(record.get(step), step, where)
    ids, size = _vocabulary(model.get("vocab"), where)
    special: dict[str, int] = {}
    following = size
    for number, token in enumerate(_of(record.get("added_tokens") or [], list, "added_tokens", where)):
        place = f"added_tokens[{number}]"
        name, given = _of(token, dict, place, where).get("content"), _id(token.get("id"), f"{place}.id", where)
        if not isinstance(name, str) or not name:
            raise FileError(f"{where}: {place}.content is {shown(name)}; must be a text that is not empty")
        # As the tokenizers library numbers them: what the file says must be what comes out.
        expected = ids.get(name, following)
        if given != expected:
            raise FileError(
                f"{where}: {place} {shown(name)} has id {given}, but the tokenizers library gives it {expected}: ids of added "
                "tokens follow those of the vocabulary without a hole; export the tokenizer again"
            )
        ids[name], following = given, max(following, given + 1)
        if token.get("special"):
            special[name] = given
    if not ids:
        raise FileError(f"{where}: model.vocab is empty, and there are no added_tokens; export the tokenizer again")
    vocabulary = max(size, max(ids.values()) + 1)
    if vocabulary > 2 * len(ids) + SLACK:
        raise FileError(
            f"{where}: an id of {vocabulary - 1:,} in a vocabulary of {len(ids):,} entries; export the tokenizer again"
        )
    return Tokens(ids, special, vocabulary)


def unknown(model: Mapping[str, Any], ids: Mapping[str, int]) -> int | None:
    """The id for what the vocabulary lacks; None where there is none."""
    number, name = model.get("unk_id"), model.get("unk_token")
    return number if isinstance(number, int) else ids.get(name) if isinstance(name, str) else None


def _vocabulary(vocab: Any, where: str) -> tuple[dict[str, int], int]:
    """Ids by name, and the number of entries."""
    if isinstance(vocab, list):
        for number, piece in enumerate(vocab):
            if not (isinstance(piece, list) and len(piece) == 2 and isinstance(piece[0], str) and _is_number(piece[1])):
                raise FileError(f"{where}: model.vocab[{number}] is {shown(piece)}; must be a text and its score")
        return {piece[0]: number for number, piece in enumerate(vocab)}, len(vocab)
    names: dict[int, str] = {}
    for name, number in _of(vocab, dict, "model.vocab", where).items():
        number = _id(number, f"model.vocab[{shown(name)}]", where)
        if number in names:
            raise FileError(f"{where}: model.vocab gives {shown(names[number])} and {shown(name)} the same id {number}")
        names[number] = name
    return dict(vocab), len(vocab)


def _check_step(step: Any, place: str, where: str, depth: int = 0) -> None:
    """A step of the pipeline: an object with a `type`, or none; steps within it likewise."""
    if step is None:
        return
    if not isinstance(step, dict) or not isinstance(step.get("type"), str):
        raise FileError(f"{where}: {place} is {shown(step)}; must be an object with a type, or null")
    if depth > DEEPEST:
        raise FileError(f"{where}: {place} is nested deeper than {DEEPEST} steps; write it flatter")
    for name in ("normalizers", "pretokenizers", "processors", "decoders"):
        for number, inner in enumerate(_of(step.get(name) or [], list, f"{place}.{name}", where)):
            _check_step(inner, f"{place}.{name}[{number}]" if depth < 2 else place, where, depth + 1)


def _of(value: Any, kind: type, place: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise FileError(f"{where}: {place} is {shown(value)}; must be {'an object' if kind is dict else 'a list'}")
    return value


def _id(value: Any, place: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise FileError(f"{where}: {place} is {shown(value)}; an id must be a whole number from 0 to {(1 << 31) - 1:,}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
