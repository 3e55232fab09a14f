"""Readers: every kind of file, and every way in which one is broken."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring import data
from shoestring.data import readers
from shoestring.errors import FileError


def test_reads_every_kind_in_a_folder_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("two\n")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": "one", "source": "web", "url": "u"}) + "\n\n" + json.dumps({"text": "x"})
    )
    (tmp_path / "c.txt.xz").write_bytes(lzma.compress("dré".encode()))
    (tmp_path / "d.jsonl.xz").write_bytes(lzma.compress(json.dumps({"text": "four"}).encode()))
    pq.write_table(pa.table({"text": ["five", None], "score": [1, 2]}), tmp_path / "e.parquet")
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    found = list(data.read(tmp_path))
    assert [d.text for d in found] == ["one", "x", "two\n", "dré", "four", "five"]
    assert [d.source for d in found] == ["web", "a", "b", "c", "d", "e"]
    assert [d.id for d in found] == ["a.jsonl:1", "a.jsonl:3", "b/two.txt", "c.txt.xz", "d.jsonl.xz:1", "e.parquet:1"]
    assert json.loads(found[0].metadata or "") == {"url": "u"}
    assert json.loads(found[5].metadata or "") == {"score": 1}


def test_byte_order_mark_and_any_ending_are_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "notes.weird"
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert data.read_texts(path) == ["hello"]


@given(st.text(alphabet="ab \n", min_size=1, max_size=400), st.integers(2, 50))
def test_pieces_join_to_the_text(text: str, size: int) -> None:
    before = readers.PIECE
    readers.PIECE = size
    try:
        pieces = list(readers._pieces(text, "x.txt"))
    finally:
        readers.PIECE = before
    assert "".join(p.text for p in pieces) == text
    assert len({p.id for p in pieces}) == len(pieces)
    assert all(len(p.text) <= size for p in pieces)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"good\xff", r"a\.txt: not UTF-8 at byte 4 \(0xff\)"),
        ("m.txt", b"\xef\xbb\xbfgood\xff", r"not UTF-8 at byte 7 "),
        ("b.jsonl", b'{"text": "ok"}\n{"text": "\xe9"}\n', r"b\.jsonl: not UTF-8 at byte 25 \(0xe9\)"),
        ("c.jsonl", b'{"text": 1}', r"line 1 has no 'text' that is a string \(it has: text\)"),
        ("c.jsonl", b'{"body": "x"}', r"it has: body"),
        ("c.jsonl", b"[1]", r"it has: list"),
        ("c.jsonl", b'{"text": "ok"}\n{oops', r"line 2 is not JSON"),
        ("c.jsonl", b'{"text": "\\ud800"}', r"lone surrogate"),
        ("d.txt", b"", r"holds no text"),
        ("d.jsonl", b'{"text": "  "}', r"holds no text"),
        ("e.parquet", b"not parquet", r"can't be read as Parquet"),
        ("f.txt.xz", b"not xz", r"can't be unpacked as \.xz"),
        ("g.txt.xz", lzma.compress(b"whole text")[:-8], r"can't be unpacked as \.xz"),
    ],
)
def test_broken_files_end_in_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=says) as caught:
        list(data.read(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_parquet_without_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(FileError, match="no column 'text' of strings \\(it has: body\\)"):
        list(data.read(tmp_path))


def test_missing_and_empty_places(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file or folder"):
        list(data.read(tmp_path / "nowhere"))
    with pytest.raises(FileError, match="no file of a known kind"):
        list(data.read(tmp_path))
    assert readers.size(tmp_path / "nowhere") == 0
