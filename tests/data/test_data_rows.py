"""Rows of files: every form and compression gives the same rows, and every way to be wrong is one line with its place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.data import packed
from shoestring.data import rows as reading
from shoestring.data.rows import records
from shoestring.errors import FileError

ROWS: list[dict[str, Any]] = [
    {"text": "one, two", "label": "0"},
    {"text": 'a "b"\nc', "label": "1"},
    {"text": "dré", "label": ""},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = b'\xef\xbb\xbftext,label\r\n"one, two",0\r\n"a ""b""\nc",1\r\n\r\n' + "dré,\r\n".encode()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.JSONL", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\r\n")),
        ("a.NDJson", LINES.rstrip()),
        ("a.json", LINES),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(ROWS, indent=2, ensure_ascii=False).encode()),
        ("a.json", "\n".join(json.dumps(row, indent=1) for row in ROWS).encode()),
        ("a.json", json.dumps({"version": "1", "data": ROWS}).encode()),
        ("a.json", json.dumps({"stories": ROWS}).encode()),
        ("a.json", json.dumps({"features": [], "rows": [{"row_idx": i, "row": row} for i, row in enumerate(ROWS)]}).encode()),
        ("a.csv", CSV),
        ("a.CSV", CSV.replace(b",label", b";label").replace(b'",0', b'";0').replace(b'",1', b'";1').replace(b"\xa9,", b"\xa9;")),
        ("a.tsv", b'text\tlabel\none, two\t0\n"a ""b""\nc"\t1\n' + "dré\t\n".encode()),
        ("a.jsonl.gz", gzip.compress(LINES[:40], mtime=0) + gzip.compress(LINES[40:], mtime=0)),
        ("a.jsonl.bz2", bz2.compress(LINES)),
        ("a.jsonl.xz", lzma.compress(LINES)),
        ("a.json.ZST", zstd(json.dumps(ROWS).encode())),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)),
    ],
)
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    assert [record for _, record in records(put(tmp_path, name, content))] == ROWS


@pytest.mark.parametrize(
    "type_",
    [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
)
def test_parquet_text_of_any_type(tmp_path: Path, type_: pa.DataType) -> None:
    texts = ["one", None, "dré"]
    array = pa.array(texts).dictionary_encode() if pa.types.is_dictionary(type_) else pa.array(texts).cast(type_)
    pq.write_table(pa.table({"text": array}), tmp_path / "a.parquet")
    assert [record for _, record in records(tmp_path / "a.parquet")] == [{"text": text} for text in texts]


def test_places_name_the_line_where_a_row_begins(tmp_path: Path) -> None:
    said = [where.removeprefix(str(tmp_path)) for where, _ in records(put(tmp_path, "a.csv", CSV))]
    assert said == ["/a.csv:2", "/a.csv:3", "/a.csv:6"]
    said = [where.removeprefix(str(tmp_path)) for where, _ in records(put(tmp_path, "a.json", json.dumps(ROWS).encode()))]
    assert said == ["/a.json: row 1", "/a.json: row 2", "/a.json: row 3"]


def test_one_object_is_one_row_unless_it_wraps_a_list(tmp_path: Path) -> None:
    messages = {"messages": [{"role": "user", "content": "Hi"}]}
    for row in (messages, {"text": "x", "spans": [{"from": 1}]}, {"query": "q", "choices": ["a"]}):
        path = put(tmp_path, "a.json", json.dumps(row, indent=1).encode())
        assert [record for _, record in records(path)] == [row]


def test_a_folder_gives_its_files_in_order_and_counts_the_others(tmp_path: Path) -> None:
    put(tmp_path, "b.csv", b"n\n2\n")
    put(tmp_path, "a.jsonl", b'{"n": 1}')
    put(tmp_path, "c.png", b"\x89PNG")
    put(tmp_path, "LICENSE", b"text")
    (tmp_path / "around").symlink_to(tmp_path)
    left_out: Counter[str] = Counter()
    assert [record["n"] for _, record in records(tmp_path, left_out)] == [1, "2"]
    assert left_out == {".png": 1, "without an ending": 1, "linked folder": 1}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"text", r"is read as plain text, not as rows"),
        ("a.tar.gz", b"", r"\.tar\.gz is an archive; unpack it"),
        ("a.ZIP", b"", r"\.zip is an archive; unpack it"),
        ("a.pdf", b"%PDF", r"\.pdf files hold no plain text"),
        ("a.jsonl.lz4", b"", r"\.lz4 is not unpacked here"),
        ("a.parquet.gz", b"", r"\.parquet\.gz is not unpacked here"),
        ("a.jsonl", b'{"a": 1}\n[1]', r"a\.jsonl:2: a list, not an object"),
        ("a.jsonl", b'{"a": NaN}', r"a\.jsonl:1: not JSON \(NaN"),
        ("a.jsonl", b'{"a": 1' + b"0" * 5000 + b"}", r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b'{"a": 1e999}', r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b'{"a":' + b"[" * 10**5, r"a\.jsonl:1: nested too deep"),
        ("a.jsonl", b'{"a": "\xff"}', r"not UTF-8 at byte 7 \(0xff\)"),
        ("a.json", b"[" * 10**5, r"row 1: nested too deep"),
        ("a.json", b'[{"a": 1}, {"a": oops}, {"a": 3}]' + b" " * 100, r"row 2: not JSON \(Expecting value"),
        ("a.json", b'[{"a": 1}, {"a": ', r"row 2: not JSON"),
        ("a.json", b'[{"a": 1},', r"row 2: not JSON"),
        ("a.json", b'[{"a": 1},]', r"row 2: not JSON"),
        ("a.json", b'[{"a": 1} {"a": 2}]', r"row 1: neither a comma nor"),
        ("a.json", b'[{"a": 1}', r"row 1: neither a comma nor"),
        ("a.json", b'[{"a": 1}]\n[]', r"a\.json:2: more text behind"),
        ("a.json", b'[{"a": 1}, "b"]', r"row 2: a str, not an object"),
        ("a.json", b'"text"', r"a\.json:1: a str, not an object"),
        ("a.json", b'{"a": 1}\n{"a": \xff}', r"not UTF-8 at byte 15"),
        ("a.json", b'{"train": [{"a": 1}], "test": [{"a": 1}]}', r"several lists of rows \(train, test\)"),
        ("a.json", b'{"text": {"0": "a", "1": "b"}}', r"column by column"),
        ("a.json", b'{"text": ["a", "b"], "label": [0, 1]}', r"column by column"),
        ("a.json", b'{"columns": ["a"], "index": [0], "data": [["x"]]}', r"column by column"),
        ("a.csv", b"a,b\n1,2,3\n", r"a\.csv:2: 3 cells where the first row names 2"),
        ("a.csv", b"a,b\n1\n", r"a\.csv:2: 1 cells"),
        ("a.csv", b'a,b\n1,2\n1,"2\n3', r"a\.csv:3: can't be read as a row of CSV"),
        ("a.csv", b"a,a\n1,2\n", r"names a column twice"),
        ("a.jsonl.gz", b"not gzip", r"can't be unpacked as \.gz"),
        ("a.jsonl.gz", gzip.compress(LINES * 99, mtime=0)[:-9], r"can't be unpacked as \.gz"),
        ("a.jsonl.bz2", b"not bzip", r"can't be unpacked as \.bz2"),
        ("a.jsonl.bz2", bz2.compress(LINES)[:-9], r"can't be unpacked as \.bz2"),
        ("a.jsonl.xz", lzma.compress(LINES)[:-9], r"can't be unpacked as \.xz"),
        ("a.jsonl.zst", b"not zstd", r"can't be unpacked as \.zst"),
        ("a.jsonl.zst", zstd(LINES)[:-9], r"can't be unpacked as \.zst"),
        ("a.parquet", b"PAR1", r"can't be read as Parquet"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(FileError, match=says) as caught:
        list(records(put(tmp_path, name, content)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_pipes_bombs_and_endless_lines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(FileError, match="not a plain file"):
        list(records(tmp_path / "a.jsonl"))
    with pytest.raises(FileError, match="no such file"):
        list(records(tmp_path / "nowhere.jsonl"))
    monkeypatch.setattr(packed, "SMALL", 1 << 16)
    monkeypatch.setattr(packed, "UNFOLDS", 20)
    bomb = b'{"text": "x"}\n' * 10**5
    for ending, pack in ((".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".zst", zstd)):
        with pytest.raises(FileError, match="unpacks to more than"):
            list(records(put(tmp_path, f"b.jsonl{ending}", pack(bomb))))
    with (
        packed.unpacked(put(tmp_path, "c.jsonl", b"ab\n" + b"x" * 100), "") as stream,
        pytest.raises(FileError, match="line 2 has more"),
    ):
        list(stream.lines(longest=50))


VALUES = st.none() | st.integers() | st.text(max_size=4) | st.lists(st.booleans(), max_size=2)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=4), st.data())
def test_arrays_are_read_in_any_pieces(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    text = json.dumps(rows, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=False)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)]) if b > a]

    class Stream:
        path = Path("a.json")

        def text(self) -> Any:
            return iter(pieces)

    assert [row.record for row in reading._json(Stream())] == rows  # type: ignore[arg-type]


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(1, 5), st.booleans())
def test_text_in_pieces_is_the_text(text: str, size: int, mark: bool) -> None:
    content = (b"\xef\xbb\xbf" if mark else b"") + text.encode()
    stream = object.__new__(packed.Unpacked)
    stream.path, stream.most, stream.given, stream.packing = Path("a"), None, 0, ""
    places = iter(range(0, len(content) + 3, max(3, size)))
    stream.read = lambda size_=0: content[(at := next(places, 10**9)) : at + max(3, size)]  # type: ignore[assignment,method-assign]
    assert "".join(stream.text()) == content.decode("utf-8-sig")
