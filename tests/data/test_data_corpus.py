"""The corpus step: the embedded default and files of one's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shoestring import artifact, data
from shoestring.data import corpus, documents, stdlib
from shoestring.errors import FileError
from shoestring.measure import find
from shoestring.technique import Sketch, Task, Watch

Maker = Callable[[str], tuple[Task, Watch]]


def test_docstrings_in_order_and_clean() -> None:
    lines = ['"""Module."""', "if True:", "    class A:", '        """Class', "", '            more."""', "        def f(self):"]
    source = "\n".join([*lines, '            "f"', 'x = "no"'])
    assert stdlib.docstrings(source) == "Module.\n\nClass\n\nmore.\n\nf\n"
    assert stdlib.docstrings("x = 1") == ""


def test_embedded_corpus_has_no_tests_and_both_sources(embedded: Path) -> None:
    table = pq.read_table(embedded / documents.FILE)
    ids = table["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert table["order"].to_pylist() == list(range(len(ids)))
    assert "argparse.py" in ids
    assert "argparse.py::docstrings" in ids
    assert any(i.startswith("pydoc_data/topics.py::") for i in ids)
    assert not [i for i in ids if {"test", "tests", "idle_test", "site-packages"} & set(i.split("/"))]
    about = artifact.manifest(embedded).about
    assert set(about["sources"]) == {"code", "prose"}
    assert about["origin"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert len(about["origin"]["sha256"]) == 64
    assert about["bytes"] == sum(len(t.encode()) for t in table["text"].to_pylist())
    predicted = data.Corpus().predict(Sketch(), find("cpu")).sketch
    assert predicted.text_bytes == pytest.approx(about["bytes"], rel=0.3)


def test_embedded_names_do_not_depend_on_locale_or_compiled_files() -> None:
    code = (
        "import hashlib, pathlib, sysconfig\nfrom shoestring.data import stdlib\n"
        "root = pathlib.Path(sysconfig.get_paths()['stdlib'])\n"
        "text = ''.join(stdlib._source(root / name) for name in stdlib.files(root)[:80])\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    runs = set()
    for locale in ("C", "C.UTF-8"):
        environment = {"LC_ALL": locale, "PYTHONUTF8": "0"}
        runs.add(subprocess.run([sys.executable, "-B", "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert len(runs) == 1


def test_limit_is_an_even_sample_in_order(tmp_path: Path, work: Maker) -> None:
    for name in "abcdefgh":
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    (tmp_path / "empty.txt").write_text(" \n")
    task, watch = work("few")
    data.Corpus(source=str(tmp_path), limit=3).apply({}, task, watch)
    kept = pq.read_table(task.out / documents.FILE)["id"].to_pylist()
    names = [f"{n}.txt" for n in "abcdefgh"]
    assert kept == [n for n in names if n in sorted(names, key=corpus.key)[:3]]
    assert artifact.manifest(task.out).about["drops"] == {"beyond the limit": 5, "empty": 1}


def test_same_names_in_two_folders_become_unique(tmp_path: Path, work: Maker) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(folder)
    task, watch = work("both")
    data.Corpus(source=(str(tmp_path / "one"), str(tmp_path / "two"))).apply({}, task, watch)
    assert pq.read_table(task.out / documents.FILE)["id"].to_pylist() == ["a.txt", "a.txt~2"]


def test_unknown_source_is_told_and_nothing_is_left(tmp_path: Path, work: Maker) -> None:
    (tmp_path / "a.txt").write_text("text")
    task, watch = work("none")
    with pytest.raises(FileError, match="no document of source prose; it has: a"):
        data.Corpus(source=str(tmp_path / "a.txt"), sources=("prose",)).apply({}, task, watch)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_importing_the_room_loads_neither_torch_nor_daft() -> None:
    code = "import shoestring.data, sys; print([m for m in ('torch', 'daft', 'rustbpe', 'tokenizers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["a [1]", "what?", "all*", "{a,b}", "back\\slash", "50%20 #1", "\x1b[31m"])
def test_odd_names_of_folders_are_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    for number in (1, 2):
        (Path(name) / f"{number}.txt").write_text("The same.")
    report = data.run_on_files(data.Exact(), Path(name), Path(f"{name} out"), find("cpu"))
    assert sum(report["about"]["drops"].values()) == 1
    assert artifact.manifest(Path(f"{name} out")).kind == "corpus"


def test_what_a_source_holds_is_part_of_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    from shoestring.data import Corpus, Tokenize

    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "tokenizer.json").write_text("{}")
    found = {
        "file": lambda: Corpus(source=str(tmp_path / "a.txt")).outside(),
        "folder": lambda: Corpus(source=(str(tmp_path), "python-stdlib")).outside(),
        "tokenizer": lambda: Tokenize(tokenizer=str(tmp_path)).outside(),
    }
    before = {name: outside() for name, outside in found.items()}
    (tmp_path / "a.txt").write_text("two")
    assert all(outside() != before[name] for name, outside in found.items())
    embedded = Corpus().outside()
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.1")
    assert Corpus().outside() != embedded
    assert Corpus(source=str(tmp_path / "a.txt")).outside() == found["file"]()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "x").write_text("a folder of the user's")
    assert Tokenize().outside() == Tokenize(tokenizer="checkpoint").outside()
