"""Files and texts of the user's, read once and for all: whatever is wrong with one ends in one line that names its place.

Every room reads JSON, YAML and plain files through here, so that a depth of 10,000 brackets, a number of 5,000 digits, a
FIFO or an alias that unfolds into gigabytes is refused alike everywhere.
"""

from __future__ import annotations

import json
import lzma
import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from shoestring.errors import FileError, file_error, shown

SMALL = 256 << 20
"""Bytes of the largest file that is read as one JSON or YAML record; the largest tokenizer.json known has 34 MB."""
UNFOLDED = 1_000_000
"""Entries that a YAML text may have when every alias is written out."""
_HALF = re.compile("[\ud800-\udfff]")


def regular(path: Path | str, at_most: int | None = None) -> Path:
    """The path, when a plain file stands there (links are followed): a FIFO or a device would wait or never end.

    Raises:
        FileError: nothing there, not a plain file, or more than `at_most` bytes.
    """
    path = Path(path)
    try:
        about = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(about.st_mode):
        raise FileError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(about.st_mode):
        raise FileError(f"{path}: is not a plain file (a pipe, socket or device); copy what it gives into a file and name that")
    if at_most is not None and about.st_size > at_most:
        raise FileError(
            f"{path}: {about.st_size:,} bytes, more than the {at_most:,} that such a file may have; is it the right one?"
        )
    return path


def read_bytes(path: Path | str, at_most: int | None = SMALL) -> bytes:
    """All bytes of a plain file.

    Raises:
        FileError: as `regular`, or it can't be read.
    """
    path = regular(path, at_most)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def read_text(path: Path | str, at_most: int | None = SMALL) -> str:
    """All text of a plain UTF-8 file, a byte-order mark left out.

    Raises:
        FileError: as `read_bytes`, or not UTF-8 (with the byte's offset).
    """
    return utf8(read_bytes(path, at_most), path)


def utf8(data: bytes, where: Path | str) -> str:
    """Bytes as UTF-8 text, a byte-order mark left out.

    Raises:
        FileError: with the offset of the first byte that does not fit.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Python counts from behind a byte-order mark.
        at = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        byte = data[at] if at < len(data) else 0
        raise FileError(f"{where}: not UTF-8 at byte {at} (0x{byte:02x}); convert it, for example with iconv") from error


def unpacked_xz(data: bytes, where: Path | str, at_most: int = SMALL) -> bytes:
    """What a .xz file's bytes hold.

    Raises:
        FileError: damaged, or more than `at_most` bytes: a few kilobytes can hold gigabytes.
    """
    unpacker = lzma.LZMADecompressor(memlimit=SMALL)
    try:
        found = unpacker.decompress(data, at_most + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise FileError(f"{where}: can't be unpacked as .xz ({error}); it is damaged or not that kind of file") from error
    if len(found) > at_most:
        raise FileError(f"{where}: unpacks into more than the {at_most:,} bytes that such a file may have; is it the right one?")
    if not unpacker.eof:
        raise FileError(f"{where}: the .xz ends too early; it was cut off: fetch it again")
    return found


def parse_json(text: str | bytes, where: Path | str, advice: str = "mend it") -> Any:
    """A JSON text as plain data; NaN and Infinity, which JSON does not have, are refused.

    Args:
        where: what an error begins with, such as the path, or "rows.jsonl:12".
        advice: what to do about it.

    Raises:
        FileError: it is not JSON, nested too deep, or has a number beyond bounds.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise FileError(f"{where}: not UTF-8 at byte {error.start}; {advice}") from error
    except RecursionError as error:
        raise FileError(f"{where}: nested too deep to be read; {advice}") from error
    except ValueError as error:
        raise FileError(f"{where}: not JSON ({shown(str(error), quote=False)}); {advice}") from error


def read_json(path: Path | str, advice: str = "mend it", at_most: int = SMALL) -> Any:
    """The JSON record in a file.

    Raises:
        FileError: as `read_bytes` and `parse_json`.
    """
    return parse_json(read_text(path, at_most), path, advice)


def read_object(path: Path | str, advice: str = "mend it", at_most: int = SMALL) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileError: as `read_json`, or another kind of value.
    """
    record = read_json(path, advice, at_most)
    if not isinstance(record, dict):
        raise FileError(f"{path}: holds a {type(record).__name__}, not a JSON object; {advice}")
    return record


def to_json(record: Any, indent: int | None = 1, sort: bool = False) -> str:
    """Plain data as JSON that every reader takes: a number that is not finite is our own fault, and raises.

    Raises:
        ValueError: NaN or infinity in it.
    """
    return json.dumps(record, indent=indent, sort_keys=sort, ensure_ascii=False, allow_nan=False)


def parse_yaml(text: str, where: Path | str) -> Any:
    """A YAML text as plain data, read as people write: `1e-4` is a number; `on`, `2:4` and `2024-02-30` are words.

    That is the core schema of YAML 1.2, with `1_000` for a thousand; a key that stands twice is refused.

    Raises:
        FileError: it is not YAML, nested too deep, or unfolds into more than `UNFOLDED` entries.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _unfolded(node, {}) > UNFOLDED:
                raise FileError(f"{where}: its aliases unfold into more than {UNFOLDED:,} entries; write it without them")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "check its syntax"
        raise FileError(f"{where}: not YAML{place}; {shown(str(what), quote=False)}") from error
    except RecursionError as error:
        raise FileError(f"{where}: nested too deep to be read; write it flatter") from error
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
        raise FileError(f"{where}: holds a value that can't be read ({shown(str(error), quote=False)})") from error


def read_yaml(path: Path | str) -> Any:
    """The YAML record in a file.

    Raises:
        FileError: as `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path), path)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain words of YAML 1.2."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        text = super().construct_scalar(node)
        if isinstance(text, str) and _HALF.search(text):
            raise ValueError(f"{shown(text)} has half a character, a surrogate without its pair")
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {shown(key.value)} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_CORE = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?\d[\d_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (r"[-+]?(?:\.\d+|\d[\d_]*(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+0123456789."),
    "merge": (r"<<", "<"),
}
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _CORE.items():
    _letters = [letter if letter != "\0" else "" for letter in _first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _letters)


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    if len(text) > 1000:  # Python would refuse it at 4,300 digits
        raise ValueError(f"a number of {len(text):,} digits")
    for prefix, base in (("0o", 8), ("0x", 16)):
        if text.startswith(prefix):
            return int(text[2:], base)
    return int(text)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """Entries of a node with its aliases written out; an alias of itself counts as endless."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = UNFOLDED + 1
    total = 1 + sum(_unfolded(child, known) for child in _children(node))
    known[id(node)] = total
    return total


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is beyond what a float holds")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _unreadable(path: Path, error: OSError | ValueError) -> FileError:
    if isinstance(error, OSError):
        return file_error(path, error)
    return FileError(f"{shown(str(path))}: not a path that can be opened ({error})")
