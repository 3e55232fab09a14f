"""The seconds of each unit, from the times of pieces of work whose counts are known: the one fit that all probes use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoestring.measure.counts import Counts


def fit_units(rows: Sequence[Counts], seconds: Sequence[float]) -> tuple[dict[str, float], float]:
    """Seconds per unit of each term, and their mean relative error: least squares of the relative errors, nothing negative."""
    terms = list(rows[0])
    work = np.array([[row[term] for term in terms] for row in rows], dtype=np.float64)
    wanted = np.maximum(np.array(seconds), 1e-9)
    scale = np.where(work.max(axis=0) > 0, work.max(axis=0), 1.0)
    units = nonnegative(work / scale / wanted[:, None], np.ones(len(wanted))) / scale
    return dict(zip(terms, units.tolist())), float(np.abs(work @ units / wanted - 1).mean())


def nonnegative(matrix: np.ndarray, target: np.ndarray, rounds: int = 20_000) -> np.ndarray:
    """The x >= 0 that minimises |matrix x - target|, coordinate by coordinate: exact for a convex problem this small."""
    gram, side = matrix.T @ matrix, matrix.T @ target
    x = np.zeros(matrix.shape[1])
    for _ in range(rounds):
        before = x.copy()
        for j in range(len(x)):
            if gram[j, j] > 0:
                x[j] = max(0.0, x[j] + (side[j] - gram[j] @ x) / gram[j, j])
        if np.abs(x - before).max() <= 1e-12 * max(1e-300, x.max()):
            break
    return x
