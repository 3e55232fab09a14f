"""Deduplication: planted duplicates against all-pairs truth, exact copies, what stays, and the same bytes twice."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring import artifact, data
from shoestring.data import documents, engine, exact, minhash, near
from shoestring.errors import SettingError
from shoestring.technique import State, Task, Watch, configure

Maker = Callable[[str], tuple[Task, Watch]]


def planted(count: int, seed: int = 0) -> list[str]:
    """Texts of invented words, a third of them copies of others with some words changed, spaced in other ways."""
    draw = random.Random(seed)
    texts: list[str] = []
    for _ in range(count):
        if texts and draw.random() < 0.35:
            words = draw.choice(texts).split()
            for _ in range(draw.choice([0, 1, 2, 3, 5, 9])):
                words[draw.randrange(len(words))] = f"new{draw.randrange(10**6)}"
            texts.append(draw.choice([" ", "\n", "  \t"]).join(words))
        else:
            texts.append(" ".join(f"w{draw.randrange(3000)}" for _ in range(draw.randrange(60, 300))))
    return [*texts, "", " \n", "one two", "one  two", "one three"]


def shingles(text: str, width: int = 5) -> set[tuple[str, ...]]:
    """A text's word shingles, in plain Python."""
    words = text.split()
    return {tuple(words[i : i + width]) for i in range(max(1, len(words) - width + 1))}


def jaccard(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    return len(left & right) / len(left | right)


def table(texts: list[str]) -> pa.Table:
    return pa.table({"order": list(range(len(texts))), "text": texts})


def check(found: minhash.Found, sets: list[set[tuple[str, ...]]], least: float) -> None:
    """Each that goes is similar to the one that stays for it; of all similar pairs hardly one stays whole."""
    kept = dict(zip(found.orders.tolist(), found.kept.tolist()))
    for order, stands in kept.items():
        assert kept[stands] == stands
        assert jaccard(sets[order], sets[stands]) >= 0.8
    pairs = [(i, j) for i, j in itertools.combinations(range(len(sets)), 2) if jaccard(sets[i], sets[j]) >= 0.8]
    assert len(pairs) > 60
    assert sum(kept[i] != i or kept[j] != j for i, j in pairs) >= least * len(pairs)


@pytest.mark.parametrize("keep", ["first", "longest"])
def test_what_goes_is_similar_to_what_stays_and_hardly_a_pair_stays(keep: minhash.Keep) -> None:
    import daft

    texts = planted(320)
    found = minhash.find(daft.from_arrow(table(texts)), threshold=0.8, shingle=5, keep=keep)
    check(found, [shingles(text) for text in texts], 0.99)


def test_no_cut_and_no_order_of_rows_changes_what_stays(tmp_path: Path) -> None:
    whole = table(planted(120))
    cuts = [whole.slice(80), whole.slice(0, 30), whole.slice(30, 50)]
    for number, cut in enumerate(cuts):
        pq.write_table(cut, tmp_path / f"{number}.parquet")
    parts = [tmp_path / f"{number}.parquet" for number in range(3)]
    pq.write_table(whole, tmp_path / "whole.parquet")
    first, second = (minhash.find(engine.read(files), 0.8, 5) for files in (parts, tmp_path / "whole.parquet"))
    assert first.kept.tolist() == second.kept.tolist()
    assert len(set(first.kept.tolist())) < len(whole)


def test_a_chain_keeps_both_ends() -> None:
    import daft

    words = [f"w{i}" for i in range(100)]
    chain = [words, [*words[7:], *(f"x{i}" for i in range(7))], [*words[14:], *(f"x{i}" for i in range(14))]]
    texts = [" ".join(text) for text in chain]
    sets = [shingles(text) for text in texts]
    assert jaccard(sets[0], sets[1]) >= 0.8
    assert jaccard(sets[1], sets[2]) >= 0.8
    assert jaccard(sets[0], sets[2]) < 0.8
    assert minhash.find(daft.from_arrow(table(texts)), 0.8, 5).kept.tolist() == [0, 0, 2]


@pytest.mark.parametrize("first", ["\u4e00", "\u0e01", "\u1780", "\u3041", "\u1000"])
def test_scripts_without_spaces_are_compared_by_characters(first: str) -> None:
    import daft

    draw = random.Random(1)
    text = "".join(chr(ord(first) + draw.randrange(30)) for _ in range(200))
    other = text[:100] + chr(ord(first) + 31) + text[101:]
    words = f"text of {text[:60]} and"
    texts = [text, other, text[::-1], words, f"{words} more"]
    found = minhash.find(daft.from_arrow(table(texts)), 0.8, 5)
    assert found.kept.tolist() == [0, 0, 2, 3, 3]
    found = minhash.find(daft.from_arrow(table(texts)), 0.8, 5, units="words")
    assert found.kept.tolist() == [0, 1, 2, 3, 4]
    assert found.short == 4 + 1
    assert minhash.find(
        daft.from_arrow(table(["abcdefghij" * 9, "abcdefghij" * 9 + "k"])), 0.8, 5, "characters"
    ).kept.tolist() == [0, 0]


def test_many_documents_of_one_shingle_are_said(tmp_path: Path, work: Maker) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "just three words"}\n{"text": "one, two"}\n')
    task, watch = work("out")
    notes: list[str] = []
    state = data.Corpus(source=str(tmp_path / "in.jsonl")).apply({}, *work("corpus"))
    data.MinHash().apply(state, task, replace(watch, note=notes.append))
    assert "2 of 2 documents have one shingle or none" in notes[0]
    assert artifact.manifest(task.out).about["minhash"]["one_shingle"] == 2


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_miss_almost_nothing_at_the_threshold(threshold: float) -> None:
    bands, rows = minhash.bands_and_rows(threshold)
    assert bands * rows <= minhash.HASHES
    assert (1 - threshold**rows) ** bands <= minhash.MISSED


@given(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=2, max_size=6), st.floats(0.3, 1.0))
def test_verification_is_the_exact_jaccard_similarity(rows: list[list[int]], threshold: float) -> None:
    texts = [" ".join(map(str, row)) for row in rows]
    words = pa.array([[hash(w) % 2**63 for w in t.split()] for t in texts], pa.large_list(pa.uint64()))
    sets = minhash.shingle_sets(words, 2)
    dense = minhash._dense(pa.table({"order": list(range(len(rows))), "shingles": sets}), np.arange(len(rows)))
    mark = np.zeros(1 + max((int(s.max()) for s in dense.values() if len(s)), default=0), dtype=bool)
    for i, j in itertools.combinations(range(len(rows)), 2):
        mark[:] = False
        mark[dense[i]] = True
        assert near.similar(mark, len(dense[i]), dense[j], threshold) == _similar(texts[i], texts[j], threshold)


@given(
    st.lists(st.lists(st.integers(0, 9), unique=True, min_size=2, max_size=8).map(sorted), max_size=6),
    st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=10, max_size=10),
    st.permutations(range(10)),
)
def test_greedy_choice_is_that_of_its_definition(groups: list[list[int]], sets: list[set[int]], rank: list[int]) -> None:
    buckets = [np.array(group) for group in groups]
    found = near.keep(buckets, np.array(rank), {i: np.array(sorted(s)) for i, s in enumerate(sets)}, 0.6)
    stays: list[int] = []
    for row in sorted(range(10), key=rank.__getitem__):
        like = [
            other
            for other in stays
            if any(row in group and other in group for group in groups)
            and len(sets[row] & sets[other]) >= 0.6 * len(sets[row] | sets[other])
        ]
        assert found.by[row] == (like[0] if like else row)
        stays += [] if like else [row]
    assert found.verified == 10 - len(stays)


def test_exact_copies_differ_in_white_space_only() -> None:
    import daft

    texts = ["a b", "a  b", "a b\n", "A b", "ab", "c", "c"]
    assert exact.duplicates(daft.from_arrow(table(texts))) == {1: 0, 2: 0, 6: 5}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_later_copies_point_at_the_first(hashes: list[tuple[int, int]]) -> None:
    orders = np.arange(len(hashes)) * 3
    columns = np.array(hashes, dtype=np.uint64).reshape(-1, 2)
    expected = {3 * i: 3 * hashes.index(h) for i, h in enumerate(hashes) if hashes.index(h) != i}
    assert exact.later_copies(orders, columns[:, 0], columns[:, 1]) == expected


def test_steps_keep_one_of_each_cluster_and_say_of_which_the_others_were(tmp_path: Path, work: Maker) -> None:
    base = [f"word{i}" for i in range(80)]
    texts = {"a": base, "b": [*base, "longer", "by", "three"], "c": base, "d": [f"other{i}" for i in range(80)]}
    for name, words in texts.items():
        (tmp_path / f"{name}.txt").write_text((" " if name < "c" else "\n").join(words))
    state = data.Corpus(source=str(tmp_path)).apply({}, *work("corpus"))
    once = data.Exact().apply(state, *work("exact"))
    assert _ids(once) == ["a.txt", "b.txt", "d.txt"]
    assert pq.read_table(once["corpus"] / documents.DROPS)["detail"].to_pylist() == ["of a.txt"]
    assert _ids(data.MinHash().apply(state, *work("first"))) == ["a.txt", "d.txt"]
    longest = data.MinHash(keep="longest").apply(state, *work("longest"))
    assert _ids(longest) == ["b.txt", "d.txt"]
    about = artifact.manifest(longest["corpus"]).about
    assert about["drops"] == {"near-duplicate": 2}
    assert about["minhash"]["bands"] == 20
    assert about["facts"] == {"documents": 2, "text_bytes": about["bytes"]}


def test_two_runs_write_the_same_bytes(tmp_path: Path, work: Maker) -> None:
    for number, text in enumerate(planted(150)):
        (tmp_path / f"{number:03}.txt").write_text(text)
    files = []
    for run in "xy":
        state = data.Corpus(source=str(tmp_path)).apply({}, *work(f"corpus-{run}"))
        state = data.MinHash().apply(state, *work(f"minhash-{run}"))
        files.append(artifact.manifest(state["corpus"]).files)
    assert files[0] == files[1]


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(SettingError, match=r"steps\.minhash\.threshold: input should be less than or equal to 1"):
        configure(data.MinHash, {"threshold": 1.5}, "steps.minhash")
    with pytest.raises(SettingError, match="needs a corpus"):
        data.MinHash().apply({}, None, None)  # type: ignore[arg-type]


def _similar(left: str, right: str, threshold: float) -> bool:
    """By the definition; two texts without words are the same, one without words is like no other."""
    if not left or not right:
        return left == right
    return jaccard(shingles(left, 2), shingles(right, 2)) >= threshold


def _ids(state: State) -> list[str]:
    found: list[str] = pq.read_table(state["corpus"] / documents.FILE)["id"].to_pylist()
    return found
