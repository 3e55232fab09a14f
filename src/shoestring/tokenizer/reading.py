"""The files of a tokenizer: `tokenizer.json`, and beside it what names its special tokens and its chat templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoestring.errors import FileError
from shoestring.files import parse_json, read_bytes, read_object, read_text, unpacked_xz
from shoestring.tokenizer.bytelevel import clean

ADVICE = "fetch or export the tokenizer again"
SMALL = 16 << 20
"""Bytes of the largest file beside tokenizer.json that is read."""


def read(path: Path | str) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The records of a `tokenizer.json` (or .json.xz) and its configuration, and where the former was.

    As in transformers, `chat_template.jinja` and `additional_chat_templates/` come before what tokenizer_config.json has, and a
    `special_tokens_map.json` names the tokens that it does not name.

    Args:
        path: the file, or a folder that holds one.

    Raises:
        FileError: missing, unreadable, or not JSON objects.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in ("tokenizer.json", "tokenizer.json.xz") if (path / name).exists()]
        if not found:
            raise FileError(f"{path}: holds no tokenizer.json; name a folder with one, or the file itself")
        path = found[0]
    config = _beside(path, "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        named = {name: token for name, token in _beside(path, "special_tokens_map.json").items() if name.endswith("_token")}
        config = {name: token.get("content") if isinstance(token, dict) else token for name, token in named.items()} | config
    return _record(path), config | _templates(path.parent), path


def written(record: Mapping[str, Any], **form: Any) -> str:
    """A record as JSON; in ASCII when it holds a lone surrogate, which UTF-8 can't."""
    text = json.dumps(record, ensure_ascii=False, **form)
    return text if clean(text) == text else json.dumps(record, **form)


def _record(path: Path) -> dict[str, Any]:
    if path.suffix != ".xz":
        return read_object(path, ADVICE)
    record = parse_json(unpacked_xz(read_bytes(path), path), path, ADVICE)
    if not isinstance(record, dict):
        raise FileError(f"{path}: holds a {type(record).__name__}, not a JSON object; {ADVICE}")
    return record


def _beside(path: Path, name: str) -> dict[str, Any]:
    other = path.with_name(name)
    return read_object(other, ADVICE, SMALL) if other.exists() else {}


def _templates(folder: Path) -> dict[str, Any]:
    """`chat_template`, where it has files of its own."""
    found = {}
    if (folder / "chat_template.jinja").exists():
        found["default"] = read_text(folder / "chat_template.jinja", SMALL)
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[file.stem] = read_text(file, SMALL)
    if not found:
        return {}
    if found.keys() == {"default"}:
        return {"chat_template": found["default"]}
    return {"chat_template": [{"name": name, "template": source} for name, source in found.items()]}
