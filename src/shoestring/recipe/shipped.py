"""The recipes that come with Shoestring: found by name from anywhere, without a checkout."""

from __future__ import annotations

from pathlib import Path

import shoestring
from shoestring.errors import FileError, nearest, shown


def shipped() -> dict[str, Path]:
    """Name -> file of each recipe that comes with Shoestring: in the package, or in the checkout that it runs from."""
    package = Path(shoestring.__file__).parent
    # The wheel puts the checkout's folder into the package; an editable install runs from src/.
    places = (package / "recipes", package.parents[1] / "recipes")
    folder = next((place for place in places if place.is_dir()), places[0])
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_recipe(name: Path | str) -> Path:
    """The file that a person means: a path, or a shipped recipe as "quickstart" or "recipes/quickstart.yaml".

    Raises:
        FileError: neither; what is shipped is listed.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    known = shipped()
    if path.parent in (Path(), Path("recipes")) and path.name.removesuffix(".yaml") in known:
        return known[path.name.removesuffix(".yaml")]
    hint = nearest(path.stem, known)
    raise FileError(f"{shown(str(name), quote=False)}: no such file, and no recipe that comes with shoestring; {hint}")
