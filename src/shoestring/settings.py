"""Settings from plain data: a pydantic class filled from what a person wrote, or a one-line error that names the key."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shoestring.errors import SettingError, nearest, shown, together

Settings = TypeVar("Settings", bound=BaseModel)

LARGEST = 2**63 - 1
"""No whole number of a setting may be larger: beyond it no tensor, file or generator could take it."""


def configure(kind: type[Settings], settings: Mapping[str, Any], where: str) -> Settings:
    """Build a settings class from plain data, with a one-line error that names the key.

    Args:
        where: the dotted path that stands before the key in an error, such as "steps.gptq".

    Raises:
        SettingError: unknown key (the nearest valid one is named), a value that does not fit, or a number beyond all
            bounds. All are named at once.
    """
    wrong = [f"{where}{path}: {shown(value)} is {what}" for path, value, what in _boundless(dict(settings))]
    if not wrong:
        try:
            built = kind.model_validate(dict(settings))
        except ValidationError as error:
            wrong = _problems(error.errors(include_url=False), kind, where)
        except (OverflowError, RecursionError) as error:
            wrong = [f"{where}: a value is too large or nested too deep ({shown(str(error), quote=False)})"]
        else:  # a number may have come in as a text
            wrong = [f"{where}{path}: {shown(value)} is {what}" for path, value, what in _boundless(built.model_dump())]
    if wrong:
        raise SettingError(together(wrong))
    return built


_ALTERNATIVE = re.compile(r"(function-\w+|literal|tuple|list|dict)\[.*")
"""What pydantic puts in the path of a value that may be of several types, for each of them."""


def _problems(found: Sequence[ErrorDetails], kind: type[BaseModel], where: str) -> list[str]:
    """Pydantic's complaints as lines; of those about one value, the one about an unknown name says enough."""
    inside = [[str(part) for part in problem["loc"] if not _ALTERNATIVE.fullmatch(str(part))] for problem in found]
    paths = [shown(".".join([where, *parts]), quote=False) for parts in inside]
    named = {path for path, problem in zip(paths, found) if problem["type"] == "choice"}
    pairs = zip(paths, found)
    return [_problem(path, problem, kind) for path, problem in pairs if problem["type"] == "choice" or path not in named]


def _problem(path: str, problem: ErrorDetails, kind: type[BaseModel]) -> str:
    """One complaint as a line that names the key, the value and what is allowed."""
    if problem["type"] == "extra_forbidden":
        return f"{path}: no such setting; {nearest(str(problem['loc'][-1]), kind.model_fields)}"
    if problem["type"] == "missing":
        return f"{path}: must be given"
    if problem["type"] == "choice":
        return f"{path}: {problem['msg']}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower() + message[1:]}, got {shown(problem['input'])}"


def _boundless(value: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Numbers in plain data that are beyond all bounds: where each stands, it, and what it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        yield path, value, "larger than any number here may be"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, value, "not a finite number"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _boundless(inner, f"{path}.{shown(str(key), quote=False)}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _boundless(inner, f"{path}.{number}")
