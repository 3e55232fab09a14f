"""The ledger: for each step what was predicted, what was measured, and the quality before and after."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from shoestring.artifact import write_whole
from shoestring.errors import FileError, file_error
from shoestring.evaluate import differences
from shoestring.measure import Quantity, Usage

Quality = dict[str, Quantity]


@dataclass(slots=True)
class Row:
    """One step of a run."""

    step: str
    technique: str
    room: str
    settings: dict[str, Any]
    key: str
    artifact: str
    predicted: Usage
    measured: Usage
    predicted_disk: Quantity
    disk: Quantity
    started: str
    reused: bool = False
    automatic: bool = False
    foreseen: Quality | None = None
    """Quality predicted for the model that this step makes."""
    before: Quality | None = None
    after: Quality | None = None
    difference: Quality | None = None
    """After minus before, paired over the windows and rows that both evaluations share; what they don't share is left out."""
    numbers: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One line of `ledger.jsonl`."""
        return {
            "step": self.step,
            "technique": self.technique,
            "room": self.room,
            "settings": self.settings,
            "key": self.key,
            "reused": self.reused,
            "automatic": self.automatic,
            "predicted": self.predicted.to_json(),
            "measured": self.measured.to_json(),
            "disk": {"predicted": self.predicted_disk.to_json(), "measured": self.disk.to_json()},
            "quality": {
                "predicted": _plain(self.foreseen),
                "before": _plain(self.before),
                "after": _plain(self.after),
                "difference": _plain(self.difference),
            },
            "numbers": self.numbers,
            "started": self.started,
            "versions": self.versions,
            "artifact": self.artifact,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Row:
        """The row that `to_json` wrote."""
        return cls(
            step=record["step"],
            technique=record["technique"],
            room=record["room"],
            settings=record["settings"],
            key=record["key"],
            artifact=record["artifact"],
            predicted=Usage.from_json(record["predicted"]),
            measured=Usage.from_json(record["measured"]),
            predicted_disk=Quantity.from_json(record["disk"]["predicted"]),
            disk=Quantity.from_json(record["disk"]["measured"]),
            started=record["started"],
            reused=record["reused"],
            automatic=record["automatic"],
            foreseen=_quality(record["quality"].get("predicted")),
            before=_quality(record["quality"]["before"]),
            after=_quality(record["quality"]["after"]),
            difference=_quality(record["quality"].get("difference")),
            numbers=record["numbers"],
            versions=record["versions"],
        )


def difference(rows: Sequence[Row], changed: Sequence[Row], judged: Row) -> Quality | None:
    """What the last of the steps that changed the model did to its quality; None without an evaluation before it.

    Args:
        changed: the rows that made a model, in order. judged: the evaluation of the last one.
    """
    if len(changed) < 2:
        return None
    since = rows.index(changed[-2])
    earlier = next((row for row in rows[since:] if row.numbers is not None), judged)
    return None if earlier is judged else differences(Path(earlier.artifact), Path(judged.artifact)) or None


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows, whole or not at all."""
    write_whole(path, "".join(json.dumps(row.to_json()) + "\n" for row in rows))


def read(path: Path) -> list[Row]:
    """The rows of a `ledger.jsonl`.

    Raises:
        FileError: the file is missing, or a line of it is not a row.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise file_error(path, error) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(Row.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path}: line {number} is not a ledger row; run the recipe again to rewrite it") from error
    return rows


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    found = {"python": platform.python_version()}
    for package in ("shoestring", "torch", "numpy", "daft"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(quality: Quality | None) -> dict[str, Any] | None:
    return None if quality is None else {name: figure.to_json() for name, figure in quality.items()}


def _quality(record: dict[str, Any] | None) -> Quality | None:
    return None if record is None else {name: Quantity.from_json(figure) for name, figure in record.items()}
