"""Gopher's rules against a naive version of the paper's text, one document and one rule at a time."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring import artifact, data
from shoestring.data import documents, gopher
from shoestring.errors import FileError, SettingError
from shoestring.technique import Task, Watch


def naive_measures(text: str) -> list[bool]:
    """Whether each rule fails, in plain Python."""
    words, lines = text.split(), [s for line in text.split("\n") if (s := line.strip())]
    paragraphs = [s for p in re.split(r"\n[ \t\r]*\n\s*", text) if (s := p.strip())]
    n, letters = max(len(words), 1), sum(map(len, words))
    mean = letters / n
    bare = {w.strip(string.punctuation).lower() for w in words}
    failed = [
        len(words) < 50,
        len(words) > 100_000,
        not 3 <= mean <= 10,
        text.count("#") / n > 0.1 or (text.count("...") + text.count("…")) / n > 0.1,
        sum(line.startswith(gopher.BULLETS) for line in lines) / max(len(lines), 1) > 0.9,
        sum(line.endswith(("...", "…")) for line in lines) / max(len(lines), 1) > 0.3,
        sum(any(c.isalpha() for c in w) for w in words) / n < 0.8,
        len(bare & set(gopher.STOP_WORDS)) < 2,
    ]
    for parts in (lines, paragraphs):
        again = [p for i, p in enumerate(parts) if p in parts[:i]]
        failed.append(len(again) / max(len(parts), 1) > 0.30)
        failed.append(sum(map(len, again)) / max(sum(map(len, parts)), 1) > 0.20)
    for size, limit in gopher.TOP.items():
        grams = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
        most = max(grams.values(), default=0)
        top = max((sum(map(len, g)) * c for g, c in grams.items() if c == most and c > 1), default=0)
        failed.append(top / max(letters, 1) > limit)
    for size, limit in gopher.DUPLICATE.items():
        seen, covered = set(), set()
        for i in range(len(words) - size + 1):
            gram = tuple(words[i : i + size])
            if gram in seen:
                covered.update(range(i, i + size))
            seen.add(gram)
        failed.append(sum(len(words[i]) for i in covered) / max(letters, 1) > limit)
    return failed


def naive(text: str) -> int:
    failed = naive_measures(text)
    return failed.index(True) if True in failed else -1


word = st.sampled_from(
    ["the", "of", "and", "The,", "be", "alpha", "beta", "gamma", "#", "...", "…", "12", "é", "extraordinary", "a-b"]
)
line = st.lists(word, max_size=14).map(" ".join)
text = st.lists(st.one_of(line, st.just(""), st.just("- point"), st.just("and so on...")), max_size=30).map("\n".join)


@settings(max_examples=80, deadline=None)
@given(st.lists(text, max_size=6))
def test_every_rule_agrees_with_the_naive_version(texts: list[str]) -> None:
    array = pa.array(texts, pa.large_string())
    failed = np.stack(gopher.measure(array), 1)
    assert failed.shape == (len(texts), len(gopher.RULES))
    for row, one in zip(failed, texts):
        assert row.tolist() == naive_measures(one), one
    assert gopher.first_failed(array).to_pylist() == [naive(t) for t in texts]


def test_real_text_agrees_with_the_naive_version(embedded: Path) -> None:
    prose = pq.read_table(embedded / documents.FILE, filters=[("source", "=", "prose")])["text"].to_pylist()
    texts = [text for text in prose if len(text) < 20_000][::8]
    found = gopher.first_failed(pa.array(texts)).to_pylist()
    assert found == [naive(t) for t in texts]
    assert -1 in found
    assert len(set(found)) > 2


def test_code_is_left_alone_and_drops_are_counted_and_shown(tmp_path: Path, work: Callable[[str], tuple[Task, Watch]]) -> None:
    good = (Path(__file__).parents[2] / "LICENSE").read_text().split("\n\n")
    prose = " ".join(" ".join(good).split()[:300])
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1\n" * 50)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "good.txt").write_text(prose)
    (tmp_path / "web" / "short.txt").write_text("too short")
    state = data.Corpus(source=str(tmp_path)).apply({}, *work("corpus"))
    after = data.Quality().apply(state, *work("quality"))["corpus"]
    assert pq.read_table(after / documents.FILE)["id"].to_pylist() == ["code/a.py", "web/good.txt"]
    assert artifact.manifest(after).about["drops"] == {"words below 50": 1}
    assert pq.read_table(after / documents.DROPS).to_pylist() == [
        {"id": "web/short.txt", "source": "web", "reason": "words below 50", "detail": "", "text": "too short"}
    ]
    with pytest.raises(SettingError, match=r"quality\.sources: the corpus has no source blog; it has: code, web"):
        data.Quality(sources=("blog",)).apply(state, *work("x"))
    with pytest.raises(FileError, match="drops every document"):
        data.Quality().apply(data.Corpus(source=str(tmp_path / "web" / "short.txt")).apply({}, *work("s")), *work("x"))
    assert not (tmp_path / "x").exists()
