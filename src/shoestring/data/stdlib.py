"""The embedded default corpus: the running Python's own standard library, its source as "code", its docstrings as "prose".

Only modules that `sys.stdlib_module_names` lists count, so installed packages and a distributor's additions stay out; tests
stay out as well. Everything is read from source files, so compiled files and the locale do not matter.
"""

from __future__ import annotations

import ast
import inspect
import io
import os
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from shoestring.data.readers import Document
from shoestring.errors import FileError

NAME = "python-stdlib"
TESTS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled", "lib-dynload"})
"""Folders that stay out."""


def read() -> Iterator[Document]:
    """Code first, file by file; then the docstrings of each file, then the language reference's topics.

    The docstrings of `x.py` have the id `x.py::docstrings`: where documents are divided they stay on the side of `x.py`, or
    held-out prose would stand word for word in the training code.

    Raises:
        FileError: this Python has no standard library in source form.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    names = files(root)
    if not names:
        raise FileError(f"{root}: this Python has no standard library in source form; give the corpus a source of your own")
    sources = {name: _source(root / name) for name in names}
    for name, source in sources.items():
        yield Document(name, source, "code")
    for name, source in sources.items():
        prose = docstrings(source)
        if prose:
            yield Document(f"{name}::docstrings", prose, "prose")
    for topic, text in _topics(root).items():
        yield Document(f"pydoc_data/topics.py::{topic}", text, "prose")


def files(root: Path) -> list[str]:
    """Source files of the standard library, relative to `root`, sorted."""
    found = []
    for top, folders, names in os.walk(root):
        place = Path(top).relative_to(root)
        folders[:] = [f for f in folders if f not in TESTS and (place.parts or f in sys.stdlib_module_names)]
        found += [(place / name).as_posix() for name in names if name.endswith(".py") and _wanted(place, name)]
    # The topics are prose, read by `_topics`.
    return sorted(set(found) - {"pydoc_data/topics.py"})


def _wanted(place: Path, name: str) -> bool:
    """Not another's module beside the library, nor the tables of build settings, which are the machine's."""
    return bool(place.parts) or name.removesuffix(".py") in sys.stdlib_module_names


def docstrings(source: str) -> str:
    """The docstrings of a module, its classes and functions in order, a blank line between them; "" when there are none."""
    found = []
    pending: list[ast.AST] = [_parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text and text.strip():
                found.append(inspect.cleandoc(text).strip())
        # Definitions stand in blocks of statements; expressions, most of the tree, hold none.
        for block in ("finalbody", "orelse", "handlers", "cases", "body"):
            inner = getattr(node, block, None)
            if isinstance(inner, list):
                pending.extend(reversed(inner))
    return "\n\n".join(found) + "\n" if found else ""


def _topics(root: Path) -> dict[str, str]:
    """`pydoc_data.topics.topics` from its source, sorted by name."""
    path = root / "pydoc_data" / "topics.py"
    if not path.is_file():
        return {}
    for node in _parse(_source(path)).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "topics":
            topics: dict[str, str] = ast.literal_eval(node.value)
            return {name: topics[name].strip() + "\n" for name in sorted(topics)}
    return {}


def _source(path: Path) -> str:
    """A Python file as text by its own declared encoding (PEP 263), line ends as newlines."""
    content = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding).replace("\r\n", "\n")


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in others' docstrings
        return ast.parse(source)
