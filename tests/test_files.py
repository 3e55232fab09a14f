"""Files and texts of the user's: read as people write them, and every fault one bounded line."""

import lzma
import os
from pathlib import Path

import pytest

from shoestring.errors import FileError, ShoestringError, shown
from shoestring.files import parse_json, parse_yaml, read_bytes, read_object, read_text, to_json, unpacked_xz


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:4", "2:4"),
        ("12:30:45", "12:30:45"),
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("False", False),
        ("2024-02-30", "2024-02-30"),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", 1000),
        ("-3", -3),
        ("~", None),
        ("", None),
        ("5 min", "5 min"),
        ("[1, 2:4, on]", [1, "2:4", "on"]),
        ("{a: 1e-3}", {"a": 1e-3}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("'1'", "1"),
    ],
)
def test_yaml_is_read_as_people_write(text: str, value: object) -> None:
    found = parse_yaml(text, "recipe.yaml")
    assert found == value
    assert type(found) is type(value)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "aliases"),
        ("[" * 20_000, "nested too deep"),
        ("&a [*a]", "aliases"),
        ("seed: 0x_", None),
        ("1" * 5000, "value that can't be read"),
        ("a: 1\na: 2", "stands twice"),
        ("a: [", "not YAML at line"),
        ("!!python/object:os.system x", "not YAML"),
        ("a: \x01", "not YAML"),
        ("? [1, 2]\n: 3", "not YAML"),
    ],
)
def test_hostile_yaml_is_one_line(text: str, says: str | None) -> None:
    if says is None:
        assert parse_yaml(text, "r.yaml") == {"seed": "0x_"}
        return
    with pytest.raises(FileError, match=says) as error:
        parse_yaml(text, "r.yaml")
    assert str(error.value).startswith("r.yaml: ")
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "1e999", "NaN", '{"a": Infinity}', "{", "", '"\x00"', b"\xff"])
def test_hostile_json_is_one_line(text: str | bytes) -> None:
    with pytest.raises(FileError) as error:
        parse_json(text, "c.json:3")
    assert str(error.value).startswith("c.json:3: ")
    assert len(str(error.value)) < 600


def test_only_plain_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 100)
    (tmp_path / "latin").write_bytes(b"\xef\xbb\xbfab\xe4")
    (tmp_path / "list.json").write_text("[1]")
    for name, says in (("pipe", "not a plain file"), (".", "is a folder"), ("none", "no such file")):
        with pytest.raises(FileError, match=says):
            read_bytes(tmp_path / name)
    with pytest.raises(FileError, match="more than the 99"):
        read_bytes(tmp_path / "large", at_most=99)
    with pytest.raises(FileError, match=r"byte 5 \(0xe4\)"):
        read_text(tmp_path / "latin")
    with pytest.raises(FileError, match="a list, not a JSON object"):
        read_object(tmp_path / "list.json")
    with pytest.raises(FileError, match="not a path"):
        read_bytes("a\0b")


def test_packed_files_are_bounded() -> None:
    packed = lzma.compress(bytes(100_000))
    assert unpacked_xz(packed, "a.xz") == bytes(100_000)
    with pytest.raises(FileError, match="unpacks into more than the 1,000 bytes"):
        unpacked_xz(packed, "a.xz", at_most=1000)
    with pytest.raises(FileError, match="ends too early"):
        unpacked_xz(packed[:-10], "a.xz")
    with pytest.raises(FileError, match="damaged or not that kind"):
        unpacked_xz(b"plain", "a.xz")


def test_no_json_holds_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"loss": float("nan")})


def test_messages_are_one_bounded_line() -> None:
    assert len(str(ShoestringError("steps.x: got " + "y" * 100_000))) < 400
    assert str(ShoestringError("a\x1b[31mb\nc")) == "a\\x1b[31mb c"
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    for value in ("z" * 10_000, deep, {"k": "v" * 10_000}, list(range(10_000)), b"q" * 10_000, 10**10_000):
        assert len(shown(value)) < 340
