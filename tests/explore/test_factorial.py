"""The factorial's arithmetic: synthetic truth recovered, intervals that cover, quantiles against printed tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.explore.factorial import Cell, combinations, effects, unusable
from shoestring.explore.noise import contrast, lenth
from shoestring.measure import Kind, Quantity, counted, measured, unknown
from shoestring.measure.intervals import student

NAMES = ("a", "b", "c", "d")


def table_of(
    gains: dict[str, float],
    interactions: dict[tuple[str, ...], float] | None = None,
    baseline: float = 10.0,
    noise: float = 0.0,
    repeats: int = 1,
    seed: int = 0,
    kind: Kind = Kind.MEASURED,
) -> list[Cell]:
    """A factorial whose truth is known: every present factor multiplies, every present set in `interactions` too."""
    generator = np.random.default_rng(seed)
    cells = []
    for repeat in range(repeats):
        shift = generator.normal() * noise * 3  # a seed's own luck, shared by its cells
        for size in range(len(gains) + 1):
            for present in itertools.combinations(gains, size):
                value = baseline * math.prod(gains[name] for name in present)
                for names, factor in (interactions or {}).items():
                    value *= factor if set(names) <= set(present) else 1
                value *= math.exp(shift + noise * generator.normal())
                cells.append(Cell(frozenset(present), {"size": Quantity(value, "B", kind)}, repeat))
    return cells


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), st.floats(1e-3, 1e6))
@settings(max_examples=30, deadline=None)
def test_gains_that_multiply_show_no_interaction(gains: list[float], baseline: float) -> None:
    truth = dict(zip(NAMES, gains, strict=False))
    table = table_of(truth, baseline=baseline)
    (found,) = combinations(table)
    assert found.baseline == pytest.approx(baseline)
    assert found.gains == pytest.approx(truth)
    assert found.product == pytest.approx(math.prod(gains))
    assert found.measured == pytest.approx(math.prod(gains))
    assert found.interaction == pytest.approx(1)
    for effect in effects(table):
        expected = truth[effect.factors[0]] if len(effect.factors) == 1 else 1.0
        assert effect.ratio == pytest.approx(expected)


def test_planted_interaction_is_recovered() -> None:
    table = table_of({"a": 0.5, "b": 0.25, "c": 1.1}, {("a", "b"): 1.6})
    (found,) = combinations(table)
    assert found.interaction == pytest.approx(1.6)
    assert found.product == pytest.approx(0.1375)
    by_factors = {effect.factors: effect.ratio for effect in effects(table)}
    # Effect coding: a factor present in half of the cells sees the pair's effect in half of those.
    assert by_factors[("a", "b")] == pytest.approx(math.sqrt(1.6))
    assert by_factors[("a",)] == pytest.approx(0.5 * math.sqrt(1.6))
    assert by_factors[("a", "c")] == pytest.approx(1)
    assert by_factors[("a", "b", "c")] == pytest.approx(1)


def test_contrasts_agree_with_least_squares() -> None:
    table = table_of({"a": 0.5, "b": 2, "c": 1.3}, {("a", "c"): 0.7}, noise=0.2)
    logs = {cell.present: math.log(cell.figures["size"].value or 0) for cell in table}
    subsets = [subset for size in range(4) for subset in itertools.combinations("abc", size)]
    design = [[math.prod(1 if f in present else -1 for f in subset) for subset in subsets] for present in logs]
    solved = dict(zip(subsets, np.linalg.lstsq(np.array(design, float), np.array(list(logs.values())), rcond=None)[0]))
    for effect in effects(table):
        assert math.log(effect.ratio) == pytest.approx(2 * solved[effect.factors])


def test_costs_that_add_are_told_from_gains_that_multiply() -> None:
    cells = [
        Cell(frozenset(names), {"seconds": measured(10 + 2 * ("a" in names) + 5 * ("b" in names), "s")})
        for names in [(), ("a",), ("b",), ("a", "b")]
    ]
    (found,) = combinations(cells)
    assert found.additive == pytest.approx(1)
    assert found.interaction == pytest.approx(17 / 18)


def test_counted_figures_are_exact_and_two_factors_alone_have_no_interval() -> None:
    exact = combinations(table_of({"a": 0.5, "b": 0.5}, kind=Kind.COUNTED))[0]
    assert exact.interval == pytest.approx((1.0, 1.0))
    assert "exact" in exact.method
    bare = combinations(table_of({"a": 0.5, "b": 0.5}))[0]
    assert bare.interval is None
    assert "repeats" in bare.method


def test_standard_errors_of_an_evaluation_give_the_interval() -> None:
    def cell(*names: str) -> Cell:
        value = 2.0 if not names else 2.5
        return Cell(frozenset(names), {"bits": Quantity(value, "bit/B", Kind.MEASURED, "", (value * 0.99, value * 1.01))})

    table = [cell(), cell("a"), cell("b"), cell("a", "b")]
    (found,) = combinations(table)
    assert "evaluation standard error" in found.method
    assert found.interval is not None
    half = math.log(found.interval[1] / found.interaction)
    assert half == pytest.approx(0.01 * 2, rel=1e-6)  # four cells, each within 1 %


def test_lenth_finds_the_active_contrasts_and_student_the_tables_values() -> None:
    # Printed tables of t at 97.5 %, and Lenth's t for 7, 15 and 31 contrasts.
    for freedom, expected in ((1, 12.706), (5, 2.571), (30, 2.042), (7 / 3, 3.764), (31 / 3, 2.218)):
        assert student(freedom) == pytest.approx(expected, abs=6e-4)
    generator = np.random.default_rng(1)
    noise = generator.normal(size=27) * 0.1
    error, margin = lenth([*noise, 5.0, -4.0, 3.0, 6.0])
    assert error == pytest.approx(0.1, rel=0.35)
    assert margin == pytest.approx(student(31 / 3) * error)
    table = table_of({"a": 0.5, "b": 2.0, "c": 1.0, "d": 1.0}, noise=0.01)
    found = {effect.factors for effect in effects(table) if effect.verdict == "within these weights"}
    assert {("a",), ("b",)} <= found
    assert len(found) <= 4


def test_an_interval_of_lenths_that_is_too_wide_to_be_of_use_is_called_so() -> None:
    found = effects(table_of({"a": 0.5, "b": 2.0, "c": 1.3}, noise=0.5))
    assert {effect.verdict for effect in found} == {"too wide"}
    assert "too wide to be of use, a factor of" in found[0].method
    assert "ask for repeats" in found[0].method


def of_windows(seed_noise: float, repeats: int, seed: int, gain: float = 1.0) -> list[Cell]:
    """One factor that multiplies bits by `gain`; windows that all runs share, each run with the luck of its seed."""
    generator = np.random.default_rng(seed)
    hard_W = generator.lognormal(0, 0.4, size=96)
    cells = []
    for repeat in range(repeats):
        for names in (frozenset[str](), frozenset("a")):
            luck = math.exp(seed_noise / 100 * generator.normal())
            losses_W = hard_W * (gain if names else 1.0) * luck * np.exp(0.012 * generator.normal(size=96))
            figures = {"bits": Quantity(float(losses_W.mean()), "bit/B", Kind.MEASURED)}
            cells.append(Cell(names, figures, repeat, {"bits": list(losses_W / losses_W.sum() - 1 / 96)}))
    return cells


@pytest.mark.parametrize(("seed_noise", "covered"), [(0.14, (0.75, 0.93)), (0.5, (0.30, 0.65))])
def test_one_seed_covers_too_little_and_is_never_given_as_clear(seed_noise: float, covered: tuple[float, float]) -> None:
    one = [effects(of_windows(seed_noise, 1, seed))[0] for seed in range(200)]
    assert covered[0] < np.mean([effect.interval[0] <= 1 <= effect.interval[1] for effect in one]) < covered[1]  # type: ignore[index]
    assert {effect.verdict for effect in one} == {"within these weights", "not clear"}


@pytest.mark.parametrize("seed_noise", [0.14, 0.5])
def test_repeats_cover_as_often_as_promised_and_find_what_is_there(seed_noise: float) -> None:
    three = [effects(of_windows(seed_noise, 3, seed))[0] for seed in range(200)]
    assert np.mean([effect.interval[0] <= 1 <= effect.interval[1] for effect in three]) > 0.9  # type: ignore[index]
    assert effects(of_windows(seed_noise, 3, 0, gain=1.1))[0].verdict == "clear"


def test_bootstrap_over_repeats_covers_the_truth() -> None:
    covered = 0
    for seed in range(100):
        (found,) = combinations(table_of({"a": 0.5, "b": 0.8, "c": 1.2}, {("a", "b"): 1.3}, noise=0.05, repeats=2, seed=seed))
        assert found.interval is not None
        covered += found.interval[0] <= 1.3 <= found.interval[1]
    assert covered >= 88  # 95 expected; four standard deviations below is 86


def test_the_luck_of_a_seed_that_all_cells_share_is_not_noise() -> None:
    table = table_of({"a": 0.5, "b": 0.8}, repeats=3, noise=0.0)
    shifted = [Cell(c.present, {"size": c.figures["size"].scaled(1 + c.repeat)}, c.repeat) for c in table]
    (found,) = combinations(shifted)
    assert found.interval == pytest.approx((1.0, 1.0))


def test_figures_that_cannot_be_compared_are_named_with_the_reason() -> None:
    table = [
        Cell(frozenset(), {"energy": unknown("J", "no sensor"), "sent": counted(0, "B"), "size": counted(4, "B")}),
        Cell(frozenset("a"), {"energy": measured(3, "J"), "sent": counted(0, "B"), "size": counted(2, "B")}),
    ]
    assert unusable(table) == {
        "energy": "unknown for the baseline: no sensor",
        "sent": "0 for the baseline; a ratio to it means nothing",
    }
    assert [found.figure for found in combinations(table)] == ["size"]


def test_an_incomplete_factorial_is_refused() -> None:
    table = table_of({"a": 0.5, "b": 0.5})
    with pytest.raises(ValueError, match="lacks 1 cells"):
        effects(table[:-1], ["a", "b"])
    with pytest.raises(ValueError, match="twice"):
        effects([*table, table[0]])
    with pytest.raises(ValueError, match="not named"):
        effects(table, ["a"])


def test_contrasts_are_orthogonal() -> None:
    matrix = np.stack([contrast(subset, 4) for subset in range(1, 16)])
    assert matrix @ matrix.T == pytest.approx(np.eye(15) * 4 / 16)
    assert matrix.sum(axis=1) == pytest.approx(np.zeros(15))


def test_windows_that_all_runs_share_are_paired() -> None:
    """Windows differ a lot, runs by a constant factor and a little noise: pairing sees the noise alone."""
    generator = np.random.default_rng(3)
    hard_W = generator.lognormal(0, 0.5, size=64)

    def cell(*names: str, factor: float = 1.0) -> Cell:
        losses_W = hard_W * factor * np.exp(0.01 * generator.normal(size=64))
        value, spread = losses_W.mean(), 2 * losses_W.std() / 8
        figure = Quantity(float(value), "bit/B", Kind.MEASURED, "", (float(value - spread), float(value + spread)))
        return Cell(frozenset(names), {"bits": figure}, 0, {"bits": list(losses_W / losses_W.sum() - 1 / 64)})

    table = [cell(), cell("a", factor=1.2), cell("b", factor=1.1), cell("a", "b", factor=1.2 * 1.1 * 1.05)]
    (found,) = combinations(table)
    assert "64 windows, paired" in found.method
    assert found.interval is not None
    assert found.interval[0] < 1.05 < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.02
    (alone,) = combinations([Cell(c.present, c.figures) for c in table])
    assert alone.interval is not None
    assert alone.interval[1] - alone.interval[0] > 0.3
