"""Artifacts are there and whole, or not there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring import artifact
from shoestring.errors import DamagedArtifact, FileError


def made(path: Path, about: dict | None = None) -> Path:
    with artifact.writing(path, "corpus", about) as folder:
        (folder / "a.txt").write_text("one")
        (folder / "sub").mkdir()
        (folder / "sub" / "b.bin").write_bytes(b"\0" * 1000)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    about: dict = {"early": 1}
    with artifact.writing(tmp_path / "deep" / "x", "tokens", about) as folder:
        (folder / "a.txt").write_text("one")
        about["late"] = 2
    found = artifact.verify(tmp_path / "deep" / "x")
    assert (found.kind, found.about, found.bytes) == ("tokens", {"early": 1, "late": 2}, 3)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = made(tmp_path / "x", {"n": 1}), made(tmp_path / "y", {"n": 1})
    assert (first / artifact.MANIFEST).read_bytes() == (second / artifact.MANIFEST).read_bytes()


def test_a_failed_block_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    made(tmp_path / "x")

    def fail() -> None:
        with artifact.writing(tmp_path / "x", "corpus") as folder:
            (folder / "half").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert artifact.verify(tmp_path / "x").files.keys() == {"a.txt", "sub/b.bin"}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_old_artifact_is_replaced(tmp_path: Path) -> None:
    made(tmp_path / "x")
    with artifact.writing(tmp_path / "x", "corpus") as folder:
        (folder / "new").write_text("new")
    assert artifact.verify(tmp_path / "x").files.keys() == {"new"}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda x: (x / "a.txt").unlink(), "a.txt: damaged (the file is missing)"),
        (lambda x: (x / "a.txt").write_text("longer"), "a.txt: damaged (6 bytes instead of 3)"),
        (lambda x: (x / "a.txt").write_text("ONE"), "a.txt: damaged (its checksum differs)"),
        (lambda x: (x / artifact.MANIFEST).write_text("{"), "its manifest can't be read"),
        (lambda x: (x / artifact.MANIFEST).write_text("[]"), "its manifest can't be read"),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, harm, said: str) -> None:
    harm(made(tmp_path / "x"))
    with pytest.raises(DamagedArtifact) as caught:
        artifact.verify(tmp_path / "x")
    assert said in str(caught.value)


def test_a_folder_that_is_no_artifact_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not an artifact"):
        artifact.manifest(tmp_path)


def test_an_unknown_kind_is_a_mistake_in_the_code(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown artifact kind"), artifact.writing(tmp_path / "x", "cheese"):
        pass


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no space left"), artifact.writing(tmp_path / "x", "corpus"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact.write_whole(tmp_path / "sub" / "x", "first")
    assert (tmp_path / "sub" / "x").read_text() == "first"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="no space left"):
        artifact.write_whole(tmp_path / "sub" / "x", b"second")
    assert (tmp_path / "sub" / "x").read_text() == "first"
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["x"]


def test_a_path_through_a_file_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="file"):
        artifact.write_whole(tmp_path / "file" / "x", "content")
    with pytest.raises(FileError, match="file"):
        made(tmp_path / "file" / "x")


def test_drafts_of_dead_processes_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    (tmp_path / f".x.draft-{dead.stdout.strip()}").mkdir()
    (tmp_path / f".y.draft-{dead.stdout.strip()}").write_text("half")
    (tmp_path / f".z.draft-{os.getpid()}").mkdir()
    artifact.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f".z.draft-{os.getpid()}"]
