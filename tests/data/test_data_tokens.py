"""Tokenizing: round trip, the split, given tokenizers, predictions, damage; and a technique on plain files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from shoestring import artifact, data
from shoestring.data import corpus, cost, documents, tokenize
from shoestring.errors import DamagedArtifact, FileError, SettingError
from shoestring.measure import find
from shoestring.technique import Sketch, State, Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.tokenizer.prefix import post_processor

Maker = Callable[[str], tuple[Task, Watch]]


@pytest.fixture
def small(tmp_path: Path, work: Maker) -> State:
    """A corpus of forty short documents."""
    lines = [{"text": f"Document {i} says: naïve café, the the the. " * (1 + i % 5)} for i in range(40)]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return data.Corpus(source=str(tmp_path / "in.jsonl")).apply({}, *work("corpus"))


def test_tokens_decode_to_the_documents_on_their_side(small: State, work: Maker) -> None:
    task, watch = work("tokens")
    state = data.Tokenize(vocabulary=300, heldout=0.2).apply(small, task, watch)
    opened = data.open_tokens(task.out)
    tokenizer = opened.tokenizer()
    assert state["tokens"] == task.out
    assert opened.vocabulary == tokenizer.vocabulary == 300
    assert opened.train.dtype == np.dtype("<u2")
    table = pq.read_table(small["corpus"] / documents.FILE)
    held = tokenize.heldout_ids(table["id"].to_pylist(), 0.2)
    assert 0 < len(held) < 40
    for stream, offsets, wanted in ((opened.train, opened.train_offsets, False), (opened.heldout, opened.heldout_offsets, True)):
        texts = [t for i, t in zip(table["id"].to_pylist(), table["text"].to_pylist()) if (i in held) == wanted]
        assert len(offsets) == len(texts) + 1
        for start, end, text in zip(offsets, offsets[1:], texts):
            assert stream[end - 1] == tokenizer.end
            assert tokenizer.decode(stream[start : end - 1].tolist()) == text
    facts = data.Tokenize(vocabulary=300).observe(Sketch(), state)
    assert (facts.tokens, facts.heldout_tokens, facts.vocabulary) == (len(opened.train), len(opened.heldout), 300)
    assert opened.about["train_bytes"] + opened.about["heldout_bytes"] == documents.about(small["corpus"])["bytes"]


def test_two_runs_write_the_same_bytes_and_a_given_tokenizer_is_used(small: State, work: Maker, tmp_path: Path) -> None:
    for name in "ab":
        data.Tokenize(vocabulary=280).apply(small, *work(name))
    assert artifact.manifest(tmp_path / "a").files == artifact.manifest(tmp_path / "b").files
    data.Tokenize(tokenizer=str(tmp_path / "a")).apply(small, *work("given"))
    data.Tokenize(tokenizer="checkpoint").apply({**small, "checkpoint": tmp_path / "a"}, *work("model"))
    for name in ("given", "model"):
        assert (tmp_path / name / "train.bin").read_bytes() == (tmp_path / "a" / "train.bin").read_bytes()
    with pytest.raises(SettingError, match="needs a checkpoint"):
        data.Tokenize(tokenizer="checkpoint").apply(small, *work("c"))


def test_parts_of_a_document_stay_on_its_side() -> None:
    assert corpus.key("a.py") == corpus.key("a.py::docstrings") != corpus.key("b.py")
    ids = [f"{i}.py{part}" for i in range(200) for part in ("", "::docstrings")]
    held = tokenize.heldout_ids(ids, 0.1)
    assert all((f"{i}.py" in held) == (f"{i}.py::docstrings" in held) for i in range(200))
    assert 10 < len(held) < 80


def test_split_has_both_sides_and_does_not_move_with_the_corpus() -> None:
    assert tokenize.heldout_ids(["a", "b"], 0.0001) in ({"a"}, {"b"})
    assert len(tokenize.heldout_ids(["a", "b", "c"], 0.5)) < 3
    assert tokenize.heldout_ids(["a"], 0.0) == set()
    some, more = (tokenize.heldout_ids([str(i) for i in range(n)], 0.2) for n in (100, 200))
    assert some == {i for i in more if int(i) < 100}
    with pytest.raises(SettingError, match=r"tokenize\.heldout: the corpus is one document"):
        tokenize.heldout_ids(["a", "a::b"], 0.1)


def test_too_small_a_text_names_the_largest_vocabulary(small: State, work: Maker, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"tokenize\.vocabulary: the text yields only \d+ entries, got 4096; give at most"):
        data.Tokenize().apply(small, *work("t"))
    assert not (tmp_path / "t").exists()


def test_heldout_may_be_nothing(small: State, work: Maker) -> None:
    task, watch = work("t")
    data.Tokenize(vocabulary=270, heldout=0).apply(small, task, watch)
    opened = data.open_tokens(task.out)
    assert len(opened.heldout) == 0
    assert opened.heldout_offsets.tolist() == [0]


def test_damage_and_wrong_artifacts_are_named(small: State, work: Maker, tmp_path: Path) -> None:
    data.Tokenize(vocabulary=270).apply(small, *work("t"))
    with pytest.raises(FileError, match="holds corpus, not tokens"):
        data.open_tokens(small["corpus"])
    with pytest.raises(FileError, match="holds tokens, not a corpus"):
        data.Exact().apply({"corpus": tmp_path / "t"}, *work("x"))
    (tmp_path / "t" / "train.bin").write_bytes(b"\0\0")
    with pytest.raises(DamagedArtifact, match=r"train\.bin"):
        data.open_tokens(tmp_path / "t")


def test_predictions_fill_the_sketch(tmp_path: Path) -> None:
    hardware = find("cpu")
    (tmp_path / "a.txt").write_text("x" * 5000)
    sketch = data.Corpus(source=str(tmp_path)).predict(Sketch(), hardware).sketch
    assert sketch.text_bytes == 5000
    for technique in (data.Corpus(), data.Quality(), data.Exact(), data.MinHash(), data.Tokenize()):
        prediction = technique.predict(sketch, hardware)
        sketch = prediction.sketch
        assert prediction.usage.seconds.value > 0
        faster = technique.predict(sketch, hardware.with_(reached={f"data.{k}.text": 1e-12 for k in cost.RATES}))
        assert faster.usage.seconds.value < prediction.usage.seconds.value
    assert sketch.vocabulary == 4096
    assert 3e6 < sketch.tokens < 4.5e6
    assert sketch.heldout_tokens == pytest.approx(sketch.tokens / 19)


def test_a_technique_on_plain_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.txt").write_text("the same text")
    hardware = find("cpu")
    quiet = {"note": lambda text: None}
    made = data.run_on_files(data.Exact(), tmp_path / "in", tmp_path / "out", hardware, **quiet)
    assert made["kind"] == "corpus"
    assert made["about"]["documents"] == 1
    again = data.run_on_files(data.Exact(), tmp_path / "out", tmp_path / "again", hardware, **quiet)
    assert again["about"]["drops"] == {}
    assert data.read_texts(tmp_path / "again") == ["the same text"]
    assert [(d.id, d.source, d.metadata) for d in data.read(tmp_path / "again")] == [("a.txt", "a", None)]
    corpus_made = data.run_on_files(data.Corpus(), tmp_path / "in", tmp_path / "c", hardware, **quiet)
    assert corpus_made["about"]["documents"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "c", "in", "out"]
    with pytest.raises(FileError, match=r"holds a\.txt, which is not of an artifact"):
        data.run_on_files(data.Exact(), tmp_path / "out", tmp_path / "in", hardware)
    with pytest.raises(FileError, match="is the input as well"):
        data.run_on_files(data.Exact(), tmp_path / "out", tmp_path / "out", hardware)


def test_documents_begin_as_the_tokenizer_given_says(small: State, work: Maker, tmp_path: Path) -> None:
    plain = data.open_tokens(data.Tokenize(vocabulary=300).apply(small, *work("first"))["tokens"]).tokenizer()
    added = [*plain.record["added_tokens"], plain.record["added_tokens"][0] | {"id": 300, "content": "<s>"}]
    record = plain.record | {"added_tokens": added, "post_processor": post_processor("<s>", 300)}
    Tokenizer(record, plain.config).save(tmp_path)
    opened = data.open_tokens(data.Tokenize(tokenizer=str(tmp_path)).apply(small, *work("second"))["tokens"])
    assert opened.prefix == (300,)
    for stream, offsets in ((opened.train, opened.train_offsets), (opened.heldout, opened.heldout_offsets)):
        assert (stream[offsets[:-1]] == 300).all()
        assert (stream == 300).sum() == len(offsets) - 1
