"""Orders of windows: functions of the epoch alone, by scores and sources of the documents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shoestring.data import Corpus, Tokenize, Tokens, open_tokens, scores
from shoestring.data.documents import read
from shoestring.data.loader import Loader
from shoestring.data.orders import ORDERS, Known, window_scores
from shoestring.data.packing import PACKINGS
from shoestring.errors import FileError, SettingError
from shoestring.technique import Task, Watch

CONTEXT = 16


@pytest.fixture
def tokens(tmp_path: Path, work: Callable[[str], tuple[Task, Watch]]) -> Tokens:
    """Documents of two sources, scored by their lengths."""
    rows = [(f"{'ab'[n % 3 == 0]}", "the naïve cat " * (1 + n * 7 % 11)) for n in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(f'{{"source": "{source}", "text": "{text}"}}\n' for source, text in rows))
    state = Corpus(source=str(tmp_path / "in.jsonl")).apply({}, *work("corpus"))
    found = [batch.to_pydict() for batch in read(state["corpus"])]
    state = scores.write(state, work("scores")[0], "size", ((each["id"], [len(t) for t in each["text"]]) for each in found))
    return open_tokens(Tokenize(vocabulary=258).apply(state, *work("tokens"))["tokens"])


def test_every_document_is_listed_where_its_tokens_are(tokens: Tokens) -> None:
    table = tokens.documents(("start", "length", "scores.size"))
    starts, lengths = table["start"].to_numpy(), table["length"].to_numpy()
    assert starts.tolist() == tokens.train_offsets[:-1].tolist()
    assert (starts + lengths).tolist() == tokens.train_offsets[1:].tolist()
    texts = [tokens.tokenizer().decode(tokens.train[a : a + n - 1].tolist()) for a, n in zip(starts, lengths, strict=True)]
    assert table["scores.size"].to_pylist() == [len(text) for text in texts]


@pytest.mark.parametrize("packing", PACKINGS)
def test_pieces_cover_each_window_and_name_its_documents(packing: str, tokens: Tokens) -> None:
    packed = PACKINGS[packing](tokens.train, tokens.train_offsets, CONTEXT)
    parts = packed.pieces()
    filled = np.bincount(parts.windows, parts.lengths, len(packed))
    assert (filled == CONTEXT).all() if packing == "stream" else (filled > 0).all() and filled.sum() == len(tokens.train)
    means = window_scores(Known(tokens, "size"), packed)
    if packing == "stream":
        sizes = np.array(tokens.documents(("scores.size",))["scores.size"].to_pylist())
        owner = np.repeat(np.arange(len(sizes)), np.diff(tokens.train_offsets))[: len(packed) * CONTEXT]
        assert means == pytest.approx(sizes[owner].reshape(-1, CONTEXT).mean(axis=1))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_order_is_a_function_of_seed_and_epoch(order: str, packing: str, tokens: Tokens) -> None:
    packed = PACKINGS[packing](tokens.train, tokens.train_offsets, CONTEXT)
    known = Known(tokens, "size", {"a": 3.0, "b": 1.0})
    made, again = (ORDERS[order](known, 5, packed) for _ in range(2))
    later = made(3)
    assert (made(0) == again(0)).all()
    assert (again(3) == later).all()
    assert len(later) == len(packed)
    assert 0 <= later.min() <= later.max() < len(packed)
    assert (ORDERS[order](known, 6, packed)(0) != made(0)).any()


def test_shuffled_is_what_it_was(tokens: Tokens) -> None:
    loader = Loader(tokens.train, tokens.train_offsets, 2, CONTEXT, 7)
    assert loader.chosen(3).tolist() == np.random.default_rng([7, 0]).permutation(loader.windows)[6:8].tolist()


def test_a_curriculum_rises_and_reads_every_window_once(tokens: Tokens) -> None:
    packed = PACKINGS["stream"](tokens.train, tokens.train_offsets, CONTEXT)
    known = Known(tokens, "size")
    windows = ORDERS["curriculum"](known, 0, packed)(1)
    assert sorted(windows) == list(range(len(packed)))
    assert (np.diff(window_scores(known, packed)[windows]) >= 0).all()


def test_a_mixture_has_the_shares_and_wears_each_source_evenly(tokens: Tokens) -> None:
    packed = PACKINGS["bestfit"](tokens.train, tokens.train_offsets, CONTEXT)
    order = ORDERS["mixed"](Known(tokens, mixture={"b": 3.0, "a": 1.0}), 0, packed)
    seen = np.bincount(np.concatenate([order(epoch) for epoch in range(6)]), minlength=len(packed))
    parts, sources = packed.pieces(), np.array(tokens.documents(("source",))["source"].to_pylist())
    lengths = {name: np.bincount(parts.windows, parts.lengths * (sources[parts.documents] == name)) for name in "ab"}
    mostly_b = lengths["b"] > lengths["a"]
    assert abs(seen[mostly_b].sum() / seen.sum() - 0.75) < 1 / len(packed)
    assert np.ptp(seen[mostly_b]) <= 1


@pytest.mark.parametrize(
    ("order", "known", "said"),
    [
        ("curriculum", {"score": "sise"}, r"no 'scores\.sise'; did you mean 'scores\.size'"),
        ("mixed", {"mixture": {"c": 1.0}}, "mixture: no source called 'c'"),
        ("mixed", {}, "mixture: must give each source's weight"),
    ],
)
def test_what_is_not_there_is_one_line(order: str, known: dict, said: str, tokens: Tokens) -> None:
    with pytest.raises((FileError, SettingError), match=said):
        Loader(tokens.train, tokens.train_offsets, 2, CONTEXT, 0, order=order, known=Known(tokens, **known))


def test_tokens_of_before_still_load_and_only_an_order_by_score_refuses_them(tokens: Tokens) -> None:
    (tokens.path / "documents.parquet").unlink()
    assert Loader(tokens.train, tokens.train_offsets, 2, CONTEXT).batch(0)["tokens"].shape == (2, CONTEXT)
    with pytest.raises(FileError, match=r"tokens of an earlier version, without documents\.parquet; tokenize the corpus again"):
        Loader(tokens.train, tokens.train_offsets, 2, CONTEXT, order="curriculum", known=Known(tokens, "size"))
