"""The ledger's row of a step: what was predicted, what was measured, and the quality before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shoestring import artifact
from shoestring.files import read_object
from shoestring.measure import UNITS, Quantity, Usage, counted, predicted, unknown
from shoestring.recipe import ledger
from shoestring.recipe.forecast import Forecast
from shoestring.recipe.ledger import Quality, Row
from shoestring.recipe.recipe import Recipe, Step
from shoestring.recipe.store import Kept


def row(step: Step, place: Path, kept: Kept, forecast: Forecast) -> Row:
    """The row of a step whose artifact stands at `place`."""
    lost = Usage(**{name: unknown(unit, kept.lost) for name, unit in UNITS.items()})
    numbers = None
    if step.technique.gives == "numbers":
        numbers = read_object(place / "numbers.json")
    foreseen = None
    if step.technique.gives == "checkpoint" and forecast.sketch.bits_per_byte is not None:
        foreseen = {"bits_per_byte": predicted(forecast.sketch.bits_per_byte, "bit/B", "the step's own forecast")}
    return Row(
        step=step.name,
        technique=step.technique.name,
        room=step.technique.room,
        settings=step.technique.model_dump(mode="json"),
        key=place.name,
        artifact=str(place),
        predicted=kept.predicted or forecast.usage,
        measured=kept.measured or lost,
        predicted_disk=kept.predicted_disk or forecast.disk,
        disk=counted(artifact.manifest(place).bytes, "B", "files of the artifact"),
        started=kept.started,
        reused=kept.reused,
        automatic=step.automatic,
        foreseen=foreseen,
        numbers=numbers,
        versions=kept.versions,
    )


def judge(recipe: Recipe, rows: Sequence[Row], row: Row) -> None:
    """Enter the quality before and after: an evaluation tells it of the newest step that changed the model."""
    changers = {step.name for step in recipe.steps if step.technique.gives == "checkpoint"}
    changed = [other for other in rows if other.step in changers]
    if row.numbers is not None and changed and row.room == "evaluate":
        quality: Quality = {
            name: Quantity.from_json(figure)
            for name, figure in row.numbers.items()
            if isinstance(figure, dict) and "unit" in figure
        }
        if changed[-1].after is None:
            changed[-1].after = quality
            changed[-1].difference = ledger.difference(rows, changed, row)
    elif row in changed and len(changed) > 1:
        row.before = changed[-2].after
