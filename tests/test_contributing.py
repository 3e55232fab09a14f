"""CONTRIBUTING.md's example works as printed: its files, put where it says, make a technique that everything knows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^ *```python\n(?P<text>(?P<indent> *)# (?P<path>\S+\.py)\n.*?)^ *```$", re.MULTILINE | re.DOTALL)
TYPED, NAME = "\nif TYPE_CHECKING:\n", "TECHNIQUES=("


@pytest.mark.slow
def test_the_example_of_a_technique_works_as_printed(tmp_path: Path) -> None:
    files = {match["path"]: textwrap.dedent(match["text"]) for match in BLOCK.finditer((ROOT / "CONTRIBUTING.md").read_text())}
    [source] = [path for path in files if path.startswith("src/")]
    [test] = [path for path in files if path.startswith("tests/")]
    for folder in ("src", "tests/compress"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    for name in ("tests/test_catalogue.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for path, text in files.items():
        assert not (tmp_path / path).exists(), f"{path} is there already; take another example"
        (tmp_path / path).write_text(text)
    [kind] = re.findall(r"^class (\w+)\(", files[source], re.MULTILINE)
    listing = (tmp_path / source).with_name("__init__.py")
    text = listing.read_text()
    assert text.count(NAME) == text.count(TYPED) == 1
    module = source.removeprefix("src/").removesuffix(".py").replace("/", ".")
    listing.write_text(text.replace(TYPED, f"{TYPED}    from {module} import {kind}\n").replace(NAME, f'{NAME}"{kind}", '))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, "tests/test_catalogue.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kind.lower()}]" not in done.stdout
    command = [sys.executable, "-m", "shoestring", "techniques", kind.lower()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.startswith(f"{kind.lower()}: "), done.stderr
    style = [sys.executable, "-m", "ruff", "check", "-q", source, test]
    done = subprocess.run(style, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
