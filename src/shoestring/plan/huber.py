"""Fitting Chinchilla's form robustly: many starts and many resamples at one time.

    minimise over (a, b, e, alpha, beta)   sum_r c_r Huber(logsumexp(a - alpha n_r, b - beta d_r, e) - log L_r) / delta^2

with n = log N, d = log D, A = exp(a), B = exp(b), E = exp(e), delta = 1e-3 (arXiv 2203.15556, section 3.3; 2404.10102). The
sum is divided by delta squared: a mean of Huber terms is so flat (1e-8) that an optimizer with usual tolerances stops at
its start. Solved by Gauss-Newton with Huber's weights and Levenberg-Marquardt damping. n and d are centred, alpha and beta
kept positive by their logarithms, so the five unknowns are nearly independent.

P problems (starts or resamples), R rows, 5 unknowns: a', b', e, log alpha, log beta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DELTA = 1e-3
"""Where Huber's loss turns from squares to absolute values, in log loss."""
MOST_ROUNDS = 600
QUIET_ROUNDS = 8
"""Rounds in which nothing gets better than by `TOLERANCE`, relatively, until a problem counts as solved."""
TOLERANCE = 1e-11


@dataclass(frozen=True, slots=True)
class Rows:
    """Runs as logarithms, centred."""

    n_R: np.ndarray
    d_R: np.ndarray
    y_R: np.ndarray
    middle: tuple[float, float]

    @classmethod
    def of(cls, parameters: np.ndarray, tokens: np.ndarray, loss: np.ndarray) -> Rows:
        """Rows of floats; whole numbers would overflow in 6 N D."""
        n_R, d_R, y_R = (np.log(np.asarray(column, dtype=np.float64)) for column in (parameters, tokens, loss))
        middle = float(n_R.mean()), float(d_R.mean())
        return cls(n_R - middle[0], d_R - middle[1], y_R, middle)

    def constants(self, theta_P5: np.ndarray) -> np.ndarray:
        """E, A, B, alpha, beta of each problem, (P, 5)."""
        a, b, e, log_alpha, log_beta = np.moveaxis(theta_P5, -1, 0)
        alpha, beta = np.exp(log_alpha), np.exp(log_beta)
        A, B = a + alpha * self.middle[0], b + beta * self.middle[1]
        return np.exp(np.stack([e, np.minimum(A, 700.0), np.minimum(B, 700.0), log_alpha, log_beta], axis=-1))


def starts(rows: Rows) -> np.ndarray:
    """(P, 5): a grid of alpha and beta; for each, E, A and B from least squares of the relative errors, none negative."""
    grid = np.geomspace(0.05, 1.6, 9)
    found = []
    for alpha in grid:
        for beta in grid:
            terms_R3 = np.stack([np.exp(-alpha * rows.n_R), np.exp(-beta * rows.d_R), np.ones_like(rows.n_R)], axis=1)
            weighed_R3 = terms_R3 / np.exp(rows.y_R)[:, None]
            best, *_ = np.linalg.lstsq(weighed_R3, np.ones(len(rows.y_R)), rcond=None)
            least = 1e-2 * float(np.exp(rows.y_R).min())
            found.append([*np.log(np.maximum(best, least)), np.log(alpha), np.log(beta)])
    return np.array(found)


def solve(rows: Rows, theta_P5: np.ndarray, counts_PR: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The optimum that each start leads to, and its objective: (P, 5), (P,).

    Args:
        counts_PR: how often each row counts in each problem (a bootstrap's resample); once when not given.
    """
    problems = len(theta_P5)
    counts_PR = np.ones((problems, len(rows.y_R))) if counts_PR is None else counts_PR.astype(np.float64)
    theta, damping, quiet = theta_P5.copy(), np.full(problems, 1e-3), np.zeros(problems, dtype=int)
    residual, slope = _residuals(rows, theta)
    value = _objective(residual, counts_PR)
    for _ in range(MOST_ROUNDS):
        open_ = np.flatnonzero(quiet < QUIET_ROUNDS)
        if not len(open_):
            break
        tried = theta[open_] + _step(residual[open_], slope[open_], counts_PR[open_], damping[open_])
        tried_residual, tried_slope = _residuals(rows, tried)
        tried_value = _objective(tried_residual, counts_PR[open_])
        better = tried_value < value[open_]
        gain = np.where(better, (value[open_] - tried_value) / np.maximum(value[open_], 1e-30), 0.0)
        quiet[open_] = np.where(gain > TOLERANCE, 0, quiet[open_] + 1)
        damping[open_] = np.clip(np.where(better, damping[open_] / 5, damping[open_] * 4), 1e-12, 1e12)
        taken = open_[better]
        theta[taken], value[taken] = tried[better], tried_value[better]
        residual[taken], slope[taken] = tried_residual[better], tried_slope[better]
    return theta, value


def _residuals(rows: Rows, theta_P5: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log loss predicted minus seen, (P, R), and its slope in the five unknowns, (P, R, 5)."""
    a, b, e, log_alpha, log_beta = (column[:, None] for column in theta_P5.T)
    alpha, beta = np.exp(log_alpha), np.exp(log_beta)
    terms_PR3 = np.stack(np.broadcast_arrays(a - alpha * rows.n_R, b - beta * rows.d_R, e), axis=-1)
    largest = terms_PR3.max(axis=-1, keepdims=True)
    parts = np.exp(terms_PR3 - largest)
    total = parts.sum(axis=-1, keepdims=True)
    share = parts / total
    slopes = [share[..., 0], share[..., 1], share[..., 2]]
    slopes += [-share[..., 0] * alpha * rows.n_R, -share[..., 1] * beta * rows.d_R]
    return (largest + np.log(total))[..., 0] - rows.y_R, np.stack(slopes, axis=-1)


def _objective(residual_PR: np.ndarray, counts_PR: np.ndarray) -> np.ndarray:
    size = np.abs(residual_PR) / DELTA
    return (counts_PR * np.where(size <= 1, 0.5 * size**2, size - 0.5)).sum(axis=1)


def _step(residual_PR: np.ndarray, slope_PR5: np.ndarray, counts_PR: np.ndarray, damping_P: np.ndarray) -> np.ndarray:
    """The damped step of each problem, cut to 2 in each unknown: a factor of 7 in a constant."""
    weight = counts_PR * np.minimum(1.0, DELTA / np.maximum(np.abs(residual_PR), 1e-300))
    side = np.einsum("prk,pr->pk", slope_PR5, weight * residual_PR)
    square = np.einsum("prk,pr,prl->pkl", slope_PR5, weight, slope_PR5, optimize=True)
    diagonal = np.einsum("pkk->pk", square)
    # The floor keeps a term that has vanished (E of a resample, say) from making the system singular.
    extra = damping_P[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
    square = square + extra[:, :, None] * np.eye(square.shape[-1])
    return np.clip(-np.linalg.solve(square, side[..., None])[..., 0], -2.0, 2.0)
