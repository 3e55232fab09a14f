"""What stands before a text by a tokenizer's own rule: usually a token that begins a sequence, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoestring.errors import FileError


def prefix(record: Mapping[str, Any], config: Mapping[str, Any], bos: int | None, vocabulary: int, where: str) -> tuple[int, ...]:
    """The ids that stand before every text.

    The post-processor of tokenizer.json decides, as in transformers; where it has none that could add a token,
    `add_bos_token` of tokenizer_config.json does, as in llama.cpp's converter.

    Raises:
        FileError: a post-processor that is not as it should be.
    """
    try:
        found = _of_processor(record.get("post_processor") or {})
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{where}: its post_processor can't be read ({error!r}); export the tokenizer again") from error
    if found is not None and not all(0 <= number < vocabulary for number in found):
        raise FileError(f"{where}: its post_processor puts id {max(found)} before a text, outside the {vocabulary:,} entries")
    if found is None:
        return (bos,) if config.get("add_bos_token") is True and bos is not None else ()
    return found


def _of_processor(step: Mapping[str, Any]) -> tuple[int, ...] | None:
    """What a post-processor puts before a text; None for one that can't put anything there."""
    kind = step.get("type")
    if kind == "Sequence":
        return next((found for one in step["processors"] if (found := _of_processor(one)) is not None), None)
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (int(step["cls"][1]),)
    if kind != "TemplateProcessing":
        return None
    ids: list[int] = []
    for piece in step["single"]:
        if "SpecialToken" not in piece:
            break
        ids += [int(number) for number in step["special_tokens"][piece["SpecialToken"]["id"]]["ids"]]
    return tuple(ids)


def post_processor(token: str, number: int) -> dict[str, Any]:
    """The post-processor of a tokenizer.json that puts a token before every text."""
    before = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    second = [{"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    special = {token: {"id": token, "ids": [number], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": before, "pair": before + second, "special_tokens": special}
