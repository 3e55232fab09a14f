"""Strategies for inputs that are almost right: a good file with something wrong in it, as people and enemies make them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e-308, 0.5, "", " ", "x", "0", "1e9", "NaN", "../..",
    "/", "\x00", "\ud800", "a\nb", "\x1b[31m", "é" * 40, "{{ x }}", "x" * 3000, [], [[]], {},
    [None], {"a": {}}, [1, "a"], {"text": 1},
)  # fmt: skip
"""Values that stand where something else should."""


def _deep(levels: int) -> Any:
    made: Any = 1
    for _ in range(levels):
        made = [made]
    return made


def _places(record: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every node of plain data, at most a few hundred."""
    found = [path]
    items = record.items() if isinstance(record, dict) else enumerate(record[:40]) if isinstance(record, list) else ()
    for key, value in items:
        found += _places(value, (*path, key))
        if len(found) > 400:
            break
    return found


def _change(record: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    """The record with the node at `path` replaced, removed, renamed or doubled."""
    if not path:
        return value
    made = copy.deepcopy(record)
    parent = made
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    if how == "replace":
        parent[key] = value
    elif how == "remove":
        del parent[key]
    elif isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[f"{key}_"] = parent.pop(key)
    return made


@st.composite
def records(draw: st.DrawFn, good: Any, most: int = 3) -> Any:
    """Plain data with one to `most` nodes of it changed."""
    record = good
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(_places(record)))
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "other"]))
        value = draw(st.sampled_from(NASTY) | st.integers(2, 300).map(_deep))
        record = _change(record, path, how, value)
    return record


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes cut off, flipped, repeated, or with others in between; mostly near the beginning, where formats keep their plans."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        size = max(1, len(data))
        at = draw(st.integers(0, min(size - 1, 400)) | st.integers(0, size - 1))
        how = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "number", "drop"]))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = draw(
                st.binary(max_size=20) | st.sampled_from([b"\x00" * 8, b"\xff" * 8, b'"', b"{", b"\n", b"[" * 2000])
            )
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        elif how == "number":
            data[at : at + 8] = draw(st.sampled_from([0, 1, 2**31, 2**40, 2**60, 2**63, 2**64 - 1])).to_bytes(8, "little")
        else:
            del data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


def texts(
    good: Any, written: Callable[[Any], str] = lambda record: json.dumps(record, allow_nan=True)
) -> st.SearchStrategy[bytes]:
    """A record as the bytes of a file: changed as data, or damaged as bytes."""

    def encoded(record: Any) -> bytes:
        return written(record).encode("utf-8", "surrogatepass")

    return records(good).map(encoded) | damaged(encoded(good))
