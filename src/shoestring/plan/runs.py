"""The table of runs that a scaling law is fitted to: a CSV with the columns parameters, tokens and loss."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from shoestring.errors import FileError, file_error, nearest, shown
from shoestring.files import SMALL, regular
from shoestring.plan.trust import LARGEST

COLUMNS = ("parameters", "tokens", "loss")
FEWEST_RUNS = 6
"""One more than a law has constants."""


def read_runs(path: Path) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int]:
    """The three columns of a CSV, as floats (whole numbers would overflow in 6 N D), and how many lines were empty."""
    empty = 0
    try:
        with regular(path, SMALL).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            places = _places(path, next(reader, []))
            read = []
            for row in reader:
                if any(cell.strip() for cell in row):
                    read.append(_run(path, reader.line_num, row, places))
                else:
                    empty += 1
    except OSError as error:
        raise file_error(path, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: not a CSV file ({error}); save the runs as comma-separated UTF-8 text") from error
    if len(read) < FEWEST_RUNS:
        raise FileError(f"{path}: {len(read)} runs, at least {FEWEST_RUNS} are needed to fit five constants; add runs")
    N_R, D_R, L_R = np.array(read, dtype=np.float64).T
    return (N_R, D_R, L_R), empty


def _places(path: Path, header: list[str]) -> dict[str, int]:
    """Where each column stands."""
    names = [name.strip().lower() for name in header]
    for column in COLUMNS:
        if column not in names:
            there = nearest(column, filter(None, names)).replace("allowed:", "its columns:")
            raise FileError(f"{path}: no column {column!r}; {there}; needed: {', '.join(COLUMNS)}")
        if names.count(column) > 1:
            raise FileError(f"{path}: {names.count(column)} columns are called {column!r}; rename or remove all but one")
    return {column: names.index(column) for column in COLUMNS}


def _run(path: Path, line: int, row: list[str], places: dict[str, int]) -> list[float]:
    """One run's three figures."""
    figures = []
    for column, place in places.items():
        text = row[place].strip() if place < len(row) else ""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= LARGEST[column]:
            raise FileError(
                f"{path}: line {line}: {column} must be a number above 0 and at most {LARGEST[column]:g}, got {shown(text)}; "
                "mend or remove this run"
            )
        figures.append(value)
    return figures
