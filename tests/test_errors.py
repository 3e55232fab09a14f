"""What is said to people."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import DamagedArtifact, FileError, SettingError, ShoestringError, file_error, nearest


@given(st.text())
def test_every_message_is_one_line(text: str) -> None:
    assert len(str(ShoestringError(text)).splitlines()) <= 1


def test_the_nearest_name_is_offered() -> None:
    assert nearest("bist", ["bits", "group_size"]) == "did you mean 'bits'? allowed: bits, group_size"
    assert nearest("zzz", ["bits"]) == "allowed: bits"
    assert nearest("x", []) == "allowed: nothing"


@pytest.mark.parametrize(
    ("number", "said"), [(2, "no such file"), (13, "permission denied"), (28, "no space left"), (30, "read-only"), (122, "quota")]
)
def test_operating_system_errors_say_what_to_do(number: int, said: str) -> None:
    error = file_error(Path("/a/b"), OSError(number, "whatever"))
    assert isinstance(error, FileError)
    assert str(error).startswith("/a/b: ")
    assert said in str(error)


def test_other_operating_system_errors_keep_their_text() -> None:
    assert str(file_error("x", OSError(5, "Input/output error"))) == "x: Input/output error"
    assert str(file_error("x", OSError("odd"))) == "x: odd"


def test_damage_names_the_file_and_what_to_do() -> None:
    error = DamagedArtifact(Path("runs/a/x.bin"), "its checksum differs")
    assert error.path == Path("runs/a/x.bin")
    assert "runs/a/x.bin: damaged (its checksum differs)" in str(error)
    assert isinstance(error, FileError)
    assert not isinstance(error, SettingError)
