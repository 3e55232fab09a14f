"""Deduplication: planted duplicates against all-pairs truth, exact copies, union-find, and the same bytes twice."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring import artifact, data
from shoestring.data import clusters, documents, exact, minhash
from shoestring.data.clusters import Clusters
from shoestring.errors import SettingError
from shoestring.technique import State, Work, configure

Maker = Callable[[str], Work]


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


def test_precision_is_one_and_recall_above_99_percent_against_all_pairs() -> None:
    import daft

    texts = planted(320)
    found = minhash.find(daft.from_arrow(table(texts)), threshold=0.8, shingle=5)
    truth = Clusters.of(len(texts))
    sets = [shingles(text) for text in texts]
    pairs = {(i, j) for i, j in itertools.combinations(range(len(texts)), 2) if jaccard(sets[i], sets[j]) >= 0.8}
    for i, j in pairs:
        truth.join(i, j)
    together = {(i, j) for i, j in itertools.combinations(range(len(texts)), 2) if found.clusters[i] == found.clusters[j]}
    wanted = {(i, j) for i, j in itertools.combinations(range(len(texts)), 2) if truth.root(i) == truth.root(j)}
    assert len(pairs) > 60
    assert not together - wanted
    assert len(together & wanted) >= 0.99 * len(wanted)


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
    pairs = np.array(list(itertools.combinations(range(len(rows)), 2)))
    expected = [_similar(texts[i], texts[j], threshold) for i, j in pairs]
    assert minhash.verify(pairs, dense, threshold).tolist() == expected


@given(st.integers(1, 25), st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=40))
def test_union_find_gives_connected_components(count: int, edges: list[tuple[int, int]]) -> None:
    edges = [(a % count, b % count) for a, b in edges]
    found = Clusters.of(count)
    for a, b in edges:
        found.join(a, b)
    reach = {i: {i} for i in range(count)}
    for _ in range(count):
        for a, b in edges:
            reach[a] = reach[b] = reach[a] | reach[b]
    labels = found.labels()
    assert labels.tolist() == [found.root(i) for i in range(count)]
    for i in range(count):
        component = {j for j in range(count) if labels[j] == labels[i]}
        assert reach[i] <= component
        assert labels[i] == min(component)
    assert len(set(labels.tolist())) == count - sum(1 for i in range(count) if labels[i] != i)


@given(
    st.lists(st.lists(st.integers(0, 14), unique=True, min_size=2, max_size=8).map(sorted), max_size=6), st.integers(0, 2**32 - 1)
)
def test_two_rounds_find_the_clusters_of_all_pairs(groups: list[list[int]], seed: int) -> None:
    similar = np.random.default_rng(seed).random((15, 15)) < 0.4
    whole, rounds = Clusters.of(15), Clusters.of(15)
    for group in groups:
        for i, j in itertools.combinations(group, 2):
            if similar[i, j]:
                whole.join(i, j)
    checked = []
    for pairs in clusters.candidate_rounds([np.array(g) for g in groups], rounds):
        checked += [tuple(p) for p in pairs.tolist()]
        for i, j in pairs.tolist():
            if similar[i, j]:
                rounds.join(i, j)
    assert rounds.labels().tolist() == whole.labels().tolist()
    assert len(set(checked)) == len(checked)


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
    state = data.Corpus(source=str(tmp_path)).apply(State(), work("corpus"))
    once = data.Exact().apply(state, work("exact"))
    assert _ids(once) == ["a.txt", "b.txt", "d.txt"]
    assert pq.read_table(once.need("corpus", "") / documents.DROPS)["detail"].to_pylist() == ["of a.txt"]
    assert _ids(data.MinHash().apply(state, work("first"))) == ["a.txt", "d.txt"]
    longest = data.MinHash(keep="longest").apply(state, work("longest"))
    assert _ids(longest) == ["b.txt", "d.txt"]
    about = artifact.manifest(longest.need("corpus", "")).about
    assert about["drops"] == {"near-duplicate": 2}
    assert about["minhash"]["bands"] == 20
    assert about["facts"] == {"documents": 2, "text_bytes": about["bytes"]}


def test_two_runs_write_the_same_bytes(tmp_path: Path, work: Maker) -> None:
    for number, text in enumerate(planted(150)):
        (tmp_path / f"{number:03}.txt").write_text(text)
    files = []
    for run in "xy":
        state = data.Corpus(source=str(tmp_path)).apply(State(), work(f"corpus-{run}"))
        state = data.MinHash().apply(state, work(f"minhash-{run}"))
        files.append(artifact.manifest(state.need("corpus", "")).files)
    assert files[0] == files[1]


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(SettingError, match=r"steps\.minhash\.threshold: input should be less than or equal to 1"):
        configure(data.MinHash, {"threshold": 1.5}, "steps.minhash")
    with pytest.raises(SettingError, match="needs a corpus"):
        data.MinHash().apply(State(), None)  # type: ignore[arg-type]


def _similar(left: str, right: str, threshold: float) -> bool:
    """By the definition; two texts without words are the same, one without words is like no other."""
    if not left or not right:
        return left == right
    return jaccard(shingles(left, 2), shingles(right, 2)) >= threshold


def _ids(state: State) -> list[str]:
    found: list[str] = pq.read_table(state.need("corpus", "") / documents.FILE)["id"].to_pylist()
    return found
