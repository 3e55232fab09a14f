"""What keeps the house small: no long file, no part asked for by name, no form asked for by class."""

from __future__ import annotations

from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
LONGEST = 300
IGNORES = 12


def lines(outside: str = "-") -> list[tuple[str, str]]:
    """Every line of the source with its file, of files whose path does not hold `outside`."""
    files = [file for file in sorted(SOURCE.rglob("*.py")) if outside not in str(file)]
    return [(str(file.relative_to(SOURCE)), line) for file in files for line in file.read_text("utf-8").splitlines()]


def test_no_file_is_long() -> None:
    counts: dict[str, int] = {}
    for file, _ in lines():
        counts[file] = counts.get(file, 0) + 1
    assert len(counts) > 200
    assert {file: count for file, count in counts.items() if count > LONGEST} == {}


def test_parts_of_a_model_are_asked_for_in_their_tables_alone() -> None:
    assert [file for file, line in lines() if '"swiglu"' in line] == ["shoestring/architecture/feedforward.py"] * 2


def test_a_matrix_is_asked_for_its_form_never_for_its_class() -> None:
    assert [file for file, line in lines("model/forms") if "isinstance(" in line and "PackedLinear" in line] == []


def test_types_are_ignored_rarely() -> None:
    assert len([file for file, line in lines() if "# type: ignore" in line]) <= IGNORES
