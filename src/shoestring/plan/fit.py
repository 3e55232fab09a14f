"""A scaling law of your own: Chinchilla's form fitted to a table of runs, with intervals on what it would decide.

    L(N, D) = E + A / N^alpha + B / D^beta         fitted as arXiv 2203.15556, approach 3, and 2404.10102 (see plan.huber)

Coefficients drift from resample to resample while the loss that they predict hardly moves, so the intervals that matter
are those on decisions: the N, D and loss that are best at ten times the largest run's computation. How far to trust the
law: the runs of largest computation are left out, the rest is fitted, and those runs are predicted. That tests extrapolation only
where they lie at twice the computation of the others or more, and the text says so.

Runs that follow no such law are refused (`trust.py`) rather than given constants.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shoestring.errors import SettingError
from shoestring.measure import human
from shoestring.plan.huber import DELTA, Rows, solve, starts
from shoestring.plan.laws import Law
from shoestring.plan.runs import COLUMNS, FEWEST_RUNS, read_runs
from shoestring.plan.trust import LARGEST, refuse_errors, refuse_rising, refuse_vanished, sane

CONSTANTS = ("E", "A", "B", "alpha", "beta")
RESAMPLES = 200
HELD_OUT = 0.15
"""Share of the runs, those of the most computation, that the test of extrapolation leaves out."""
FAR = 2.0
"""Times the largest computation fitted, from which predicting a run is extrapolation."""
FARTHER = 10.0
"""The budget of the decisions, in computations of the largest run."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the law would choose for a budget of computation; 95 % intervals from the resamples."""

    flops: float
    parameters: float
    parameters_interval: Interval
    tokens: float
    tokens_interval: Interval
    loss: float
    loss_interval: Interval


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """How well the runs of most computation are predicted by a fit to the others."""

    fitted: int
    predicted: int
    farther: float
    """Largest computation predicted over largest computation fitted."""
    mean_error: float
    """Of the loss, relative, without sign."""
    worst_error: float

    @property
    def reach(self) -> str:
        """What predicting at `farther` times the computation is called."""
        if self.farther <= 1.0:
            return "interpolation"
        return "extrapolation" if self.farther >= FAR else "near, no extrapolation"


@dataclass(frozen=True, slots=True)
class Fit:
    """A law that was fitted to runs, and how sure it is."""

    law: Law
    runs: int
    intervals: dict[str, Interval]
    """95 % of the resamples, for each constant."""
    decision: Decision
    error: float
    """Mean relative error of the loss on the runs themselves."""
    held_out: Extrapolation | None
    """None when too few runs would be left to fit."""
    starts: int
    agreed: int
    """Starts that ended at the best optimum."""
    resamples: int
    """Resamples that gave a law; the others of `RESAMPLES` went to no finite constants and are left out of the intervals."""
    empty: int = 0
    """Empty lines of the file, left out."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for a JSON record; kept in a file it can be the `law` of a plan step."""
        constants = {name: {"value": getattr(self.law, name), "interval": self.intervals[name]} for name in CONSTANTS}
        return {
            "form": "L = E + A / N^alpha + B / D^beta, nats per token",
            **constants,
            "smallest_parameters": self.law.smallest_parameters,
            "smallest_tokens": self.law.smallest_tokens,
            "runs": self.runs,
            "error": self.error,
            "decision": asdict(self.decision),
            "held_out": None if self.held_out is None else {**asdict(self.held_out), "reach": self.held_out.reach},
            "starts": self.starts,
            "agreed": self.agreed,
            "empty_lines": self.empty,
            "method": f"Huber (delta {DELTA:g}) on log loss; 95 % of {self.resamples} resamples of the runs",
        }

    def text(self) -> str:
        """The same for people."""
        choice, test = self.decision, self.held_out
        left_out = f", {self.empty} empty line{'s'[: self.empty > 1]} left out" if self.empty else ""
        lines = [f"L = E + A / N^alpha + B / D^beta, fitted to {self.runs} runs (mean error {self.error:.2%}){left_out}"]
        for name in CONSTANTS:
            low, high = self.intervals[name]
            lines.append(f"{name:>6} = {getattr(self.law, name):<10.5g} 95 %: {low:.5g} to {high:.5g}")
        lines += [f"best use of {human(choice.flops, 'FLOP')} (10 x the largest run):"]
        for name in ("parameters", "tokens"):
            ends = [human(end, "") for end in getattr(choice, f"{name}_interval")]
            lines.append(f"  {name:10} {human(getattr(choice, name), '')}, 95 %: {ends[0]} to {ends[1]}")
        lines.append(f"  {'loss':10} {choice.loss:.4g}, 95 %: {choice.loss_interval[0]:.4g} to {choice.loss_interval[1]:.4g}")
        if test is None:
            lines.append(f"held out: none, it takes {FEWEST_RUNS} runs beside the {HELD_OUT:.0%} of most computation")
        else:
            lines.append(
                f"held out: the {test.predicted} runs of most computation, up to {test.farther:.3g} x the others' "
                f"({test.reach}), predicted from the other {test.fitted}: mean error {test.mean_error:.2%}, "
                f"worst {test.worst_error:.2%}"
            )
        lines.append(
            f"{self.agreed} of {self.starts} starts ended at this optimum; {self.resamples} of {RESAMPLES} resamples gave a law"
        )
        return "\n".join(lines)


def fit_file(path: Path | str) -> Fit:
    """Fit a law to a CSV with the columns parameters, tokens and loss (nats per token); other columns are ignored.

    Raises:
        FileError: no such file, a column is missing, a value is no number above 0, or there are fewer than six runs.
        SettingError: the runs can't tell the constants apart.
    """
    table, empty = read_runs(Path(path))
    return replace(fit_law(*table), empty=empty)


def fit_law(parameters: Any, tokens: Any, loss: Any, seed: int = 0) -> Fit:
    """Fit a law to runs given as three columns; see `fit_file`.

    Args:
        seed: of the resamples.

    Raises:
        SettingError: columns of different lengths, a value that is not above 0, too few runs, fewer than three different
            sizes of model or of data, from which E can't be told from A and B, or runs that do not follow one law.
    """
    N_R, D_R, L_R = columns = [np.asarray(column, dtype=np.float64) for column in (parameters, tokens, loss)]
    _check(columns)
    refuse_rising(N_R, D_R, L_R)
    rows = Rows.of(N_R, D_R, L_R)
    candidates = starts(rows)
    theta_P5, value_P = solve(rows, candidates)
    best = int(value_P.argmin())
    law = _law(rows.constants(theta_P5[best]), f"fitted to {len(N_R)} runs", float(N_R.min()), float(D_R.min()))
    refuse_vanished(law, N_R, D_R)
    laws = [_law(constants, "resample") for constants in _resampled(rows, theta_P5[best], seed) if sane(constants)]
    if len(laws) < RESAMPLES / 2:
        raise SettingError(
            f"law: only {len(laws)} of {RESAMPLES} resamples of these runs give finite constants: the runs don't decide them; "
            "add runs, with N and D varied apart"
        )
    predicted = np.array([law.loss(N, D) for N, D in zip(N_R.tolist(), D_R.tolist())])
    refuse_errors(predicted / L_R - 1)
    return Fit(
        law=law,
        runs=len(N_R),
        resamples=len(laws),
        intervals={name: _interval([getattr(other, name) for other in laws]) for name in CONSTANTS},
        decision=_decision(law, laws, FARTHER * float((6 * N_R * D_R).max())),
        error=float(np.abs(predicted / L_R - 1).mean()),
        held_out=_extrapolation(N_R, D_R, L_R),
        starts=len(candidates),
        agreed=int((value_P <= value_P[best] * 1.0001 + 1e-6).sum()),
    )


def _check(columns: list[np.ndarray]) -> None:
    if len({len(column) for column in columns}) > 1 or len(columns[0]) < FEWEST_RUNS:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise SettingError(f"law: needs three columns of the same length, at least {FEWEST_RUNS}; got {lengths}")
    for name, column in zip(COLUMNS, columns):
        if not ((column > 0) & (column <= LARGEST[name])).all():
            raise SettingError(f"law: {name} must be above 0 and at most {LARGEST[name]:g} in all runs")
        different = len(np.unique(column))
        if name != "loss" and different < 3:
            raise SettingError(
                f"law: {different} different {name} in these runs; it takes three to tell E from the rest: vary {name} more"
            )


def _law(constants: np.ndarray, source: str, least_parameters: float = 0.0, least_tokens: float = 0.0) -> Law:
    E, A, B, alpha, beta = (float(value) for value in constants)
    return Law("fitted", E, A, B, alpha, beta, source, least_parameters, least_tokens)


def _resampled(rows: Rows, theta_5: np.ndarray, seed: int) -> np.ndarray:
    """Constants fitted to resamples of the runs, each from the optimum, (RESAMPLES, 5)."""
    runs = len(rows.y_R)
    drawn = np.random.default_rng(seed).integers(0, runs, (RESAMPLES, runs))
    counts_PR = np.stack([np.bincount(draw, minlength=runs) for draw in drawn])
    theta_P5, _ = solve(rows, np.repeat(theta_5[None], RESAMPLES, axis=0), counts_PR)
    return rows.constants(theta_P5)


def _interval(values: list[float]) -> Interval:
    low, high = np.percentile(np.array(values), [2.5, 97.5])
    return float(low), float(high)


def _decision(law: Law, laws: list[Law], flops: float) -> Decision:
    best_N, best_D = law.optimum(flops)
    others = [other.optimum(flops) for other in laws]
    return Decision(
        flops=flops,
        parameters=best_N,
        parameters_interval=_interval([N for N, _ in others]),
        tokens=best_D,
        tokens_interval=_interval([D for _, D in others]),
        loss=law.loss(best_N, best_D),
        loss_interval=_interval([other.loss(*optimum) for other, optimum in zip(laws, others)]),
    )


def _extrapolation(N_R: np.ndarray, D_R: np.ndarray, L_R: np.ndarray) -> Extrapolation | None:
    """Leave out the runs of most computation, fit the others, predict them."""
    left_out = max(1, round(HELD_OUT * len(L_R)))
    order = np.argsort(N_R * D_R, kind="stable")
    kept, rest = order[:-left_out], order[-left_out:]
    if len(kept) < FEWEST_RUNS or len(np.unique(N_R[kept])) < 3 or len(np.unique(D_R[kept])) < 3:
        return None
    rows = Rows.of(N_R[kept], D_R[kept], L_R[kept])
    theta_P5, value_P = solve(rows, starts(rows))
    constants = rows.constants(theta_P5[value_P.argmin()])
    if not sane(constants):
        return None
    law = _law(constants, "all but the largest runs")
    errors = np.abs(np.array([law.loss(N, D) for N, D in zip(N_R[rest].tolist(), D_R[rest].tolist())]) / L_R[rest] - 1)
    farther = float((N_R * D_R)[rest].max() / (N_R * D_R)[kept].max())
    return Extrapolation(len(kept), left_out, farther, float(errors.mean()), float(errors.max()))
