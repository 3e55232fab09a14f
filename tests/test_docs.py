"""Documentation: what is run says so, what is generated is fresh, what is linked is there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from shoestring.recipe.documentation import generated, write

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_commands", ROOT / ".ci" / "readme_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs_or_says_why_not(runner: ModuleType, page: Path) -> None:
    for block in runner.blocks(page.read_text("utf-8")):
        assert block.runs or len(block.reason) > 10, f"{page}:{block.line}: give a reason"


def test_generated_pages_are_what_the_code_says() -> None:
    made = generated(ROOT / "benchmarks" / "results")
    stale = [place for place, text in made.items() if not (ROOT / "docs" / place).is_file() or _read(place) != text]
    stale += [str(path) for path in (ROOT / "docs").glob("techniques/*/*.md") if str(path.relative_to(ROOT / "docs")) not in made]
    assert not stale, f"run `make docs` and commit: {', '.join(stale)}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_old_pages_go_when_new_ones_are_written(tmp_path: Path) -> None:
    old = tmp_path / "techniques" / "compress" / "gone.md"
    old.parent.mkdir(parents=True)
    old.write_text("of a technique that is no more")
    made = write(tmp_path, tmp_path)
    assert not old.exists()
    assert set(tmp_path.rglob("*.md")) == set(made)


def _read(place: str) -> str:
    return (ROOT / "docs" / place).read_text("utf-8")


@pytest.mark.parametrize(
    ("markdown", "said"),
    [
        ("```python\nprint()\n```\n", "line 1: a python block needs"),
        ("text\n\n```\nshoestring run\n```\n", "line 3: a block without a language"),
        ("<!-- ci -->\n```console\nonly output\n```\n", "holds no command"),
        ("<!-- ci: skip -->\n```python\nprint()\n```\n", "needs"),
    ],
)
def test_blocks_that_say_nothing_are_refused(runner: ModuleType, markdown: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(runner.blocks(markdown))


def test_blocks_are_found_in_order_with_what_comes_first(runner: ModuleType) -> None:
    markdown = (
        "# t\n\n<!-- ci: first\nx = 1\n-->\n\n<!-- ci -->\n```python\nassert x == 1\n```\n\n```yaml\na: 1\n```\n"
        "<!-- ci: skip, needs a GPU -->\n```bash\ntrue\n```\n<!-- ci -->\n```console\n$ echo a \\\n> b\na b\n```\n"
    )
    found = list(runner.blocks(markdown))
    assert [(block.language, block.runs) for block in found] == [
        ("python", True), ("python", True), ("bash", False), ("console", True),
    ]  # fmt: skip
    assert found[-1].script == "echo a \\\nb\n"
    assert found[2].reason == "needs a GPU"


def test_a_block_that_fails_ends_the_run(runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "stage", lambda folder: None)
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path))
    good = [runner.Block(1, "python", "x = 1", True), runner.Block(2, "python", "assert x == 1", True)]
    runner.run_page(Path("page.md"), good)
    for bad in (runner.Block(3, "python", "assert x == 2", True), runner.Block(3, "bash", "false", True)):
        with pytest.raises(SystemExit, match=r"page\.md:3"):
            runner.run_page(Path("page.md"), [*good, bad])
