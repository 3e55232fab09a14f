"""A budget as people write it, and all that is wrong with what they write, said at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shoestring import measure
from shoestring.errors import SettingError, ShoestringError, nearest, shown, together
from shoestring.measure.units import Unit
from shoestring.technique import Budget

UNITS: dict[str, Unit] = {"time": "s", "memory": "B", "energy": "J", "money": "USD"}
"""What a budget may limit."""


class Faults(list[str]):
    """What is wrong with a recipe, gathered so that all of it is said at once."""

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Add the error that the block raises, instead of raising it."""
        try:
            yield
        except ShoestringError as error:
            self.append(str(error))

    def refuse(self) -> None:
        """Raise what was gathered, if anything was.

        Raises:
            SettingError: with every fault, the first twenty spelled out.
        """
        if self:
            raise SettingError(together(self))


def budget(limits: Mapping[str, Any]) -> Budget:
    """Limits as people write them ("5 min", "8 GB", "1 kWh", "$2") in seconds, bytes, joules and dollars.

    Raises:
        SettingError: names every limit that is unknown or can't be read.
    """
    faults, found = Faults(), {}
    for key, value in limits.items():
        with faults.gathered():
            if key not in UNITS:
                raise SettingError(f"budget.{shown(key, quote=False)}: no such limit; {nearest(str(key), UNITS)}")
            if value is not None:
                found[key] = measure.parse(str(value), UNITS[key], f"budget.{key}")
    faults.refuse()
    return Budget(**found)
