"""A choice is a named value of a setting; it stands beside the function it means, in that function's file, and in a table.

    ADAMW = Choice("adamw", Optimizer(adamw, moments=2), does="Adam with decoupled weight decay", row="T2", paper="1711.05101")
    OPTIMIZERS = Table("Training.optimizer", ADAMW, LION)

    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = "adamw"        # the field of a pydantic class
    OPTIMIZERS[settings.optimizer].make(model, settings, rate)    # what it is for

The check of the setting, its JSON Schema, the catalogue and the page in docs/techniques follow from the table, so a new
choice is one file and one name in a table. The file of a table that settings name imports no torch outside functions:
planning and the command line's help read settings, and must not wait for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shoestring.errors import SettingError, nearest, shown

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Choice(Generic[T_co]):
    """One entry of a table.

    Attributes:
        name: what a recipe calls it.
        make: what it stands for: a function, or a value; None for a feature that is simply there, such as batched decoding.
        does: what it does, in one line.
        row: its row in docs/taxonomy.md, "" for what the surveys don't list.
        paper: arXiv number, or a citation.
        saves: resources, of: computation, memory, energy, money, communication, storage, data.
    """

    name: str
    make: T_co
    does: str
    row: str
    paper: str = ""
    saves: tuple[str, ...] = ()


class Table(Mapping[str, T_co]):
    """The choices of one setting in order: a mapping from each name to what it makes.

    Attributes:
        field: where it is chosen, such as "Training.optimizer".
        choices: its entries.
        about: the idea for its page, where the entries are plain values: `about=__doc__`. Functions and classes bring that of
            their files.
    """

    def __init__(self, field: str, *choices: Choice[T_co], about: str = "") -> None:
        self.field, self.choices, self.about = field, choices, about
        self._makes = {choice.name: choice.make for choice in choices}
        assert len(self._makes) == len(choices), f"{field}: two choices have one name"

    def __getitem__(self, name: str) -> T_co:
        return self._makes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makes)

    def __len__(self) -> int:
        return len(self._makes)

    def unknown(self, name: Any) -> str:
        """What to say of a name that is not here: the nearest one, and all that are."""
        return f"no {self.field.rpartition('.')[2]} called {shown(name)}; {nearest(str(name), self)}"

    def choose(self, name: str, where: str) -> T_co:
        """What a name makes, for callers whose settings pydantic has not checked.

        Raises:
            SettingError: no such name.
        """
        if name not in self:
            raise SettingError(f"{where}: {self.unknown(name)}")
        return self[name]


@dataclass(frozen=True, slots=True, eq=False)
class OneOf:
    """Marks a text field of a pydantic class as a name in a table: `Annotated[str, OneOf(OPTIMIZERS)]`.

    Where the table's functions take the settings that the field is in, the table is named, and looked up when it is needed:
    `OneOf("shoestring.train.optimizers:OPTIMIZERS")`.
    """

    source: Table[Any] | str

    @property
    def table(self) -> Table[Any]:
        """The table."""
        if isinstance(self.source, Table):
            return self.source
        module, _, name = self.source.partition(":")
        found: Table[Any] = getattr(importlib.import_module(module), name)
        return found

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.table), "x-table": self.table.field}

    def _known(self, name: str) -> str:
        if name not in self.table:
            raise PydanticCustomError("choice", "{why}", {"why": self.table.unknown(name)})
        return name
