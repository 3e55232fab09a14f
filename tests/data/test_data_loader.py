"""The loader and packing: coverage, order, ranks, resume, reading ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.data import packing
from shoestring.data.batch import IGNORED, Batch
from shoestring.data.loader import Loader, ahead
from shoestring.data.packing import PACKINGS, BestFit
from shoestring.errors import SettingError

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
END = 0


def stream(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Documents of these lengths with distinct tokens, each closed by END; and their offsets."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    tokens = np.arange(1, offsets[-1] + 1).astype(np.uint32)
    tokens[offsets[1:] - 1] = END
    return tokens, offsets


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(st.integers(10, 300), st.integers(1, 12), st.integers(1, 7), st.integers(0, 5))
def test_stream_covers_each_window_once_an_epoch(total: int, context: int, batch: int, seed: int) -> None:
    if total <= context:
        return
    tokens = np.arange(total, dtype=np.uint16)
    loader = Loader(tokens, np.array([0, total]), batch, context, seed)
    windows = (total - 1) // context
    for epoch in range(2):
        seen = []
        for place in range(epoch * windows, (epoch + 1) * windows):
            rows = loader.batch(place // batch)
            row = rows["tokens"][place % batch]
            assert torch.equal(rows["targets"][place % batch], row + 1)
            seen.append(int(row[0]))
        assert sorted(seen) == [w * context for w in range(windows)]


@given(lengths, st.integers(2, 16), st.sampled_from(list(PACKINGS)))
def test_any_rank_count_gives_the_same_global_batch(sizes: list[int], context: int, kind: str) -> None:
    tokens, offsets = stream(sizes)
    if len(tokens) <= context:
        return
    whole = Loader(tokens, offsets, 6, context, 3, kind)
    for ranks in (2, 3, 6):
        parts = [Loader(tokens, offsets, 6, context, 3, kind, rank, ranks).batch(5) for rank in range(ranks)]
        assert torch.equal(torch.cat([p["tokens"] for p in parts]), whole.batch(5)["tokens"])
        assert torch.equal(torch.cat([p["targets"] for p in parts]), whole.batch(5)["targets"])


def test_a_step_depends_on_seed_and_step_alone() -> None:
    tokens, offsets = stream([50] * 20)
    fresh = Loader(tokens, offsets, 4, 16, seed=1)
    used = Loader(tokens, offsets, 4, 16, seed=1)
    for step in (30, 2, 17):
        used.batch(step)
    assert torch.equal(fresh.batch(9)["tokens"], used.batch(9)["tokens"])
    assert not torch.equal(fresh.batch(9)["tokens"], Loader(tokens, offsets, 4, 16, seed=2).batch(9)["tokens"])


@settings(max_examples=60)
@given(lengths, st.integers(1, 16))
def test_bestfit_neither_loses_nor_reorders_tokens(sizes: list[int], context: int) -> None:
    tokens, offsets = stream(sizes)
    loader = Loader(tokens, offsets, 1, context, 0, "bestfit")
    packed = BestFit(tokens, offsets, context).windows
    pieces: dict[int, list[int]] = {}
    for step in range(loader.windows):
        batch = loader.batch(step)
        targets, inputs, documents = batch["targets"][0].numpy(), batch["tokens"][0].numpy(), batch["documents"][0].numpy()
        assert ((documents == -1) == (targets == IGNORED)).all()
        for number in range(documents.max() + 1):
            span = np.flatnonzero(documents == number)
            assert (np.diff(span) == 1).all()
            # Inputs are the targets moved by one: a document begins behind an end token.
            assert (inputs[span[1:]] == targets[span[:-1]]).all()
            window = loader.chosen(step)[0]
            start = int(packed.starts[packed.first[window] + number])
            assert inputs[span[0]] == (tokens[start - 1] if start else END)
            assert start not in pieces
            pieces[start] = targets[span].tolist()
    assert [token for start in sorted(pieces) for token in pieces[start]] == tokens.tolist()


@settings(max_examples=60)
@given(lengths, st.integers(1, 16))
def test_bestfit_cuts_only_long_documents_and_matches_the_plain_algorithm(sizes: list[int], context: int) -> None:
    _, offsets = stream(sizes)
    windows = packing.best_fit(offsets, context)
    counts = np.bincount(windows.documents, minlength=len(sizes))
    assert (counts == [-(-size // context) for size in sizes]).all()
    rooms: list[int] = []
    for piece in sorted((min(context, s - i) for s in sizes for i in range(0, s, context)), reverse=True):
        fitting = [i for i, room in enumerate(rooms) if room >= piece]
        best = min(fitting, key=lambda i: rooms[i], default=None)
        if best is None:
            rooms.append(context - piece)
        else:
            rooms[best] -= piece
    filled = sorted(int(windows.lengths[a:b].sum()) for a, b in zip(windows.first, windows.first[1:]))
    assert filled == sorted(context - room for room in rooms)


def test_packing_leaves_little_padding() -> None:
    sizes = np.random.default_rng(0).lognormal(5, 1, 2000).astype(int) + 1
    windows = packing.best_fit(np.concatenate(([0], np.cumsum(sizes))), 1024)
    assert packing.padding_share(windows, 1024) < 0.01


def test_ahead_gives_the_same_batches_and_passes_errors_on() -> None:
    tokens, offsets = stream([50] * 20)
    loader = Loader(tokens, offsets, 4, 16)
    for step, batch in enumerate(ahead(loader, 3, 9), 3):
        assert torch.equal(batch["tokens"], loader.batch(step)["tokens"])

    class Broken:
        def batch(self, step: int) -> Batch:
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(ahead(Broken(), 0, 2))
    early = ahead(loader, 0, 1000)
    next(early)
    early.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 3, "ranks": 2}, "can't be shared by 2 ranks"),
        ({"context": 100}, "do not fill a window of 100"),
        ({"packing": "best"}, "no packing called 'best'; did you mean 'bestfit'"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_settings_that_do_not_fit(changes: dict, says: str) -> None:
    tokens, offsets = stream([10, 10])
    with pytest.raises(SettingError, match=says):
        Loader(tokens, offsets, **({"batch": 2, "context": 4} | changes))
