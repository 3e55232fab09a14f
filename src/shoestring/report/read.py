"""What a run left behind, read for a person: its record, ledger, recipe, and what its artifacts say of themselves.

Only a damaged record or ledger is an error. Whatever else is missing (a run that was stopped, an artifact that was cleaned
away, a checkpoint without a training log) leaves its part of the page empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from shoestring import artifact
from shoestring.errors import FileError, ShoestringError, file_error
from shoestring.recipe import ledger
from shoestring.recipe.ledger import Row


@dataclass(frozen=True, slots=True)
class Record:
    """A run folder: a run, a composition, or both."""

    folder: Path
    run: dict[str, Any] | None
    rows: list[Row]
    recipe: str
    compose: dict[str, Any] | None

    @property
    def name(self) -> str:
        """What was run."""
        record = self.run or self.compose or {}
        recipe = record.get("recipe")
        found = recipe.get("name") if isinstance(recipe, dict) else recipe
        return str(found or self.folder.name)

    @property
    def finished(self) -> bool:
        """Whether the run says that it came to its end."""
        return self.run is None or self.run.get("status") == "finished"

    def place(self, row: Row) -> Path:
        """The folder of a row's artifact."""
        store = (self.run or {}).get("store")
        return (self.folder / store / row.key if store else self.folder / row.artifact).resolve()

    def artifacts(self, kind: str) -> Iterator[tuple[Row, Path, dict[str, Any]]]:
        """Rows that made an artifact of a kind which is still there: row, folder, what it says of itself."""
        for row in self.rows:
            found = _manifest(self.place(row)) if row.artifact else None
            if found is not None and found.kind == kind:
                yield row, self.place(row), found.about


def read(folder: Path) -> Record:
    """Read a run folder.

    Raises:
        FileError: it is not a run folder, or one of its records is damaged.
    """
    folder = Path(folder)
    run, compose = _json(folder / "run.json"), _json(folder / "compose.json")
    if run is None and compose is None:
        raise FileError(f"{folder}: not a run (it has neither run.json nor compose.json); name the --out of a run")
    rows = ledger.read(folder / "ledger.jsonl") if (folder / "ledger.jsonl").exists() else []
    try:
        recipe = (folder / "recipe.yaml").read_text("utf-8", errors="replace")
    except FileNotFoundError:
        recipe = ""
    except OSError as error:
        raise file_error(folder / "recipe.yaml", error) from error
    return Record(folder, run, rows, recipe, compose)


def training(place: Path) -> list[dict[str, Any]]:
    """The logged steps of a checkpoint's training; a last line that a kill cut short is left out."""
    try:
        lines = (place / "training.jsonl").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    steps = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("loss"), int | float):
            # A loss that is not a number leaves a gap in the line: JSON has no word for it.
            steps.append(record if isfinite(record["loss"]) else {**record, "loss": None})
    return steps


def content(file: Path) -> Any:
    """A JSON file of an artifact, None when it is not there or can't be read."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def rejects(place: Path, limit: int = 2) -> dict[str, list[str]]:
    """The first texts of a corpus step's rejects, by reason."""
    file = place / "drops.parquet"
    if not file.exists():
        return {}
    import pyarrow.parquet as parquet

    try:
        records = parquet.read_table(file, columns=["reason", "text"]).slice(0, 10_000).to_pylist()
    except (OSError, ValueError, KeyError):
        return {}
    found: dict[str, list[str]] = {}
    for record in records:
        texts = found.setdefault(str(record["reason"]), [])
        if len(texts) < limit:
            texts.append(str(record["text"])[:280])
    return found


def _manifest(place: Path) -> artifact.Manifest | None:
    try:
        return artifact.manifest(place)
    except ShoestringError:
        return None


def _json(file: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise file_error(file, error) from error
    except ValueError as error:
        raise FileError(f"{file}: not JSON; run the recipe again to rewrite it") from error
    if not isinstance(record, dict):
        raise FileError(f"{file}: not a JSON object; run the recipe again to rewrite it")
    return record
