"""Our own way to store matrices, for whatever no other format holds: each one's form, settings and tensors as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from shoestring.errors import FileError, shown
from shoestring.model.checkpoint.families.family import Reading
from shoestring.model.checkpoint.formats.format import Format, Leaves
from shoestring.model.forms import FORMS, Matrix, build, parts


def leaves(matrix: Matrix) -> dict[str, Tensor]:
    """Its tensors."""
    return parts(matrix)[2]


def config(kept: Mapping[str, Matrix], plain: list[str]) -> dict[str, Any]:
    """Form and settings of each module."""
    forms = {name: {"form": matrix.form, "settings": matrix.settings()} for name, matrix in sorted(kept.items())}
    return {"quant_method": "shoestring", "forms": forms}


def read(config: Reading, modules: Leaves, file: Path) -> dict[str, Matrix]:
    """The matrices.

    Raises:
        FileError: a form that is not known, a module without tensors, tensors or settings that don't belong together.
    """
    found: dict[str, Matrix] = {}
    forms = config.inside("forms")
    for name in forms.record:
        entry = forms.inside(name)
        form, settings = entry.text("form"), entry.inside("settings").record
        if form not in FORMS:
            raise FileError(f"{file}: {name}: {FORMS.unknown(form)}")
        if name not in modules:
            raise FileError(f"{file}: {shown(name)} is said to be {form}, and has no tensors; the checkpoint is not whole")
        try:
            found[name] = build(form, settings, modules.pop(name))
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:  # a form's own code, on tensors of any shape
            raise FileError(f"{file}: {name} is no {form} matrix: {shown(str(error), quote=False)}") from error
    return found


NATIVE = Format("shoestring", lambda matrix: "", leaves, config, read, lambda config: frozenset())
