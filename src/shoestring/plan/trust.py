"""When runs follow no scaling law: what is refused before and after the constants are fitted, each with its reason.

N parameters, D tokens, L loss; R runs.
"""

from __future__ import annotations

import numpy as np

from shoestring.errors import SettingError
from shoestring.plan.laws import Law

LARGEST = {"parameters": 1e18, "tokens": 1e18, "loss": 1e3}
"""Beyond these a figure is a slip of the finger."""
EXPONENTS = (1e-3, 5.0)
"""Between these alpha and beta say something; published ones are .28 to .5."""
LARGEST_CONSTANT = 1e30
VANISHED = 1e-6
"""Share of the loss below which a term is not there."""
TYPICAL_ERROR = 0.03
"""Median relative error from which the runs follow another rule, or several; published fits stay below .01."""
SURE = 3.0
"""Standard errors from which a slope counts as risen."""


def sane(constants: np.ndarray) -> bool:
    """Whether E, A, B, alpha, beta are finite and of a size that a law can have."""
    E, A, B, alpha, beta = constants
    finite = bool(np.isfinite(constants).all()) and E >= 0 and 0 < A < LARGEST_CONSTANT and 0 < B < LARGEST_CONSTANT
    return finite and all(EXPONENTS[0] <= exponent <= EXPONENTS[1] for exponent in (alpha, beta))


def refuse_rising(N_R: np.ndarray, D_R: np.ndarray, L_R: np.ndarray) -> None:
    """Refuse runs whose loss rises with model size or data, by a plane through the logarithms.

    Raises:
        SettingError: names which of the two.
    """
    x_R3 = np.stack([np.ones_like(N_R), np.log(N_R), np.log(D_R)], axis=1)
    y_R = np.log(L_R)
    if np.linalg.matrix_rank(x_R3 - x_R3.mean(axis=0), tol=1e-6) < 2:
        return  # N and D go together: their slopes can't be told apart
    slope_3, *_ = np.linalg.lstsq(x_R3, y_R, rcond=None)
    left_R = y_R - x_R3 @ slope_3
    spread = float(left_R @ left_R) / max(1, len(y_R) - 3)
    error_3 = np.sqrt(spread * np.diag(np.linalg.inv(x_R3.T @ x_R3)))
    rising = [name for name, slope, error in zip(("parameters", "tokens"), slope_3[1:], error_3[1:]) if slope > SURE * error]
    if min(slope_3[1:]) >= 0:
        rising = ["parameters", "tokens"]
    if rising:
        raise SettingError(
            f"law: the loss of these runs does not fall but rises with {' and '.join(rising)}: they follow no scaling law; "
            "check the columns, and that all runs share data, tokenizer and schedule"
        )


def refuse_vanished(law: Law, N_R: np.ndarray, D_R: np.ndarray) -> None:
    """Refuse constants that no law has, or a term that has vanished.

    Raises:
        SettingError: names the constants.
    """
    constants = np.array([law.E, law.A, law.B, law.alpha, law.beta])
    values = ", ".join(f"{name} = {value:.3g}" for name, value in zip(("E", "A", "B", "alpha", "beta"), constants))
    if not sane(constants):
        raise SettingError(f"law: the fit is degenerate ({values}): these runs don't decide the constants; vary N and D more")
    terms = {"parameters": law.A / N_R**law.alpha, "tokens": law.B / D_R**law.beta}
    whole_R = law.E + sum(terms.values())
    for name, term_R in terms.items():
        if float((term_R / whole_R).max()) < VANISHED:
            raise SettingError(f"law: the loss of these runs does not depend on {name} ({values}); vary {name} more")


def refuse_errors(error_R: np.ndarray) -> None:
    """Refuse runs that the best law misses by far more than noise.

    Raises:
        SettingError: with the typical error.
    """
    typical = float(np.median(np.abs(error_R)))
    if typical > TYPICAL_ERROR:
        raise SettingError(
            f"law: these runs do not follow one law: the best one misses the loss by {typical:.1%} typically, noise is below "
            f"{TYPICAL_ERROR:.0%}; fit runs of one data set, tokenizer and schedule, each at the end of its decay"
        )
