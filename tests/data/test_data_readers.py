"""Readers: every kind of file, and every way in which one is broken."""

from __future__ import annotations

import json
import lzma
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring import artifact, data
from shoestring.data import documents, readers
from shoestring.data.readers import Document
from shoestring.errors import FileError
from shoestring.technique import Task, Watch


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
    assert [d.text for d in found] == ["one", "x", "two\n", "dré", "four", "five", ""]
    assert [d.source for d in found] == ["web", "a", "b", "c", "d", "e", "e"]
    assert [d.id for d in found][:6] == ["a.jsonl:1", "a.jsonl:3", "b/two.txt", "c.txt.xz", "d.jsonl.xz:1", "e.parquet:1"]
    assert json.loads(found[0].metadata or "") == {"url": "u"}
    assert json.loads(found[5].metadata or "") == {"score": 1}


def test_byte_order_mark_and_any_ending_are_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "notes.weird"
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert data.read_texts(path) == ["hello"]


@given(st.text(alphabet="ab \n", min_size=1, max_size=400), st.integers(2, 50), st.integers(1, 100))
def test_pieces_join_to_the_text(text: str, size: int, at_once: int) -> None:
    parts = [text[at : at + at_once] for at in range(0, len(text), at_once)]
    pieces = list(readers._pieces(iter(parts), "x.txt", size))
    assert "".join(p.text for p in pieces) == text
    assert pieces == list(readers._pieces(iter([text]), "x.txt", size))
    assert len({p.id for p in pieces}) == len(pieces)
    assert all(len(p.text) <= size for p in pieces)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"good\xff", r"a\.txt: not UTF-8 at byte 4 \(0xff\)"),
        ("m.txt", b"\xef\xbb\xbfgood\xff", r"not UTF-8 at byte 7 "),
        ("b.jsonl", b'{"text": "ok"}\n{"text": "\xe9"}\n', r"b\.jsonl: not UTF-8 at byte 25 \(0xe9\)"),
        ("c.jsonl", b'{"text": 1}', r"c\.jsonl:1: no 'text' that is a string \(no field holds text; it has: text\)"),
        ("c.jsonl", b'{"body": "x"}', r"fields that hold text: body\); name one with `field` \(--field\)"),
        ("c.jsonl", b"[1]", r"a list, not an object"),
        ("c.jsonl", b'{"text": "ok"}\n{oops', r"c\.jsonl:2: not JSON"),
        ("c.jsonl", b'{"text": "\\ud800"}', r"lone surrogate"),
        ("d.md", b"a\x00b", r"holds NUL bytes"),
        ("d.docx", b"PK", r"\.docx files hold no plain text"),
        ("d.tgz", b"", r"is an archive"),
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
    with pytest.raises(FileError, match=r"row 1: no 'text' that is a string \(fields that hold text: body"):
        list(data.read(tmp_path))


def test_missing_and_empty_places(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file or folder"):
        list(data.read(tmp_path / "nowhere"))
    with pytest.raises(FileError, match="no file of a known kind"):
        list(data.read(tmp_path))
    assert readers.size(tmp_path / "nowhere") == 0


def test_a_folder_counts_what_it_leaves_out(tmp_path: Path, work: Callable[[str], tuple[Task, Watch]]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {
        "a.json": '[{"text": "array"}]',
        "b.csv": "text,n\r\ncell,1\r\n",
        "c.txt": "plain\r\ntext\rend",
        "config.json": '{"width": 1}',
        "broken.json": "{",
        "photo.JPG": "x",
    }.items():
        (folder / name).write_bytes(content.encode())
    (folder / os.fsdecode(b"odd\xff.txt")).write_text("odd")
    left_out: Counter[str] = Counter()
    assert [d.text for d in data.read(folder, left_out=left_out)] == ["array", "cell", "plain\ntext\nend", "odd"]
    assert left_out == {".json that can't be read as rows": 1, ".json without 'text'": 1, ".jpg": 1}
    (task, watch), notes = work("corpus"), []
    data.Corpus(source=str(folder)).apply({}, task, replace(watch, note=notes.append))
    assert notes[0].startswith("corpus: 3 files of the folder left out: 1 .jpg, 1 .json that")
    assert artifact.manifest(task.out).about["files_left_out"] == dict(left_out)
    assert pq.read_table(task.out / documents.FILE)["id"].to_pylist()[-1] == "odd\\udcff.txt"


def test_a_field_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"body": "x", "text": "y", "score": 1}]')
    assert list(data.read(path, field="body")) == [Document("a.json:1", "x", "a", '{"score": 1, "text": "y"}')]
    assert data.read_texts(path) == ["y"]


def test_metadata_is_json_whatever_the_other_fields_hold(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"], "n": [float("nan")], "b": [b"\xff"], "s": ["\n"]}), tmp_path / "a.parquet")
    (found,) = data.read(tmp_path)
    assert json.loads(found.metadata or "") == {"n": "nan", "b": "1 bytes", "s": "\n"}
    (tmp_path / "b.jsonl").write_text('{"text": "x", "deep": ' + "[" * 900 + "]" * 900 + ', "source": "\\ud800"}')
    (found,) = data.read(tmp_path / "b.jsonl")
    assert found.source == "\\ud800"


@given(st.binary(max_size=60), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".jsonl.gz", ".json.zst"]))
def test_any_bytes_are_documents_or_one_line(content: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        path.write_bytes(content)
        with suppress(FileError):
            for document in data.read(path):
                assert (document.text + document.id + document.source).encode()
