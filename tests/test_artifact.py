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


def test_a_path_deeper_than_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="parts"):
        artifact.write_whole(tmp_path.joinpath(*["a"] * 1500), "text")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    about: dict = {"early": 1}
    with artifact.writing(tmp_path / "deep" / "x", "tokens", about) as folder:
        (folder / "a.txt").write_text("one")
        about["late"] = 2
    found = artifact.verify(tmp_path / "deep" / "x")
    assert (found.kind, found.about, found.bytes) == ("tokens", {"early": 1, "late": 2}, 3)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a" / "x", {"n": 1}), made(tmp_path / "b" / "x", {"n": 1})
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


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda x: (x.mkdir(), (x / "thesis.tex").write_text("mine")), "holds thesis.tex"),
        (lambda x: (made(x), (x / "notes.txt").write_text("mine")), "holds notes.txt"),
        (lambda x: (x.mkdir(), (x / "artifact.json").write_text('{"mine": 1}')), "holds artifact.json"),
        (lambda x: x.write_text("mine"), "a file of this name"),
        (lambda x: x.symlink_to(made(x.with_name("other"))), "is a link"),
        (lambda x: x.symlink_to("nowhere"), "is a link"),
    ],
)
def test_nothing_but_an_artifact_is_written_over(tmp_path: Path, harm, said: str) -> None:
    harm(tmp_path / "x")
    before = sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*"))
    with pytest.raises(FileError, match=said), artifact.writing(tmp_path / "x", "corpus"):
        pytest.fail("refused too late")
    assert sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")) == before


def test_what_appears_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    def meanwhile() -> None:
        with artifact.writing(tmp_path / "x", "corpus"):
            (tmp_path / "x").mkdir()
            (tmp_path / "x" / "mine").write_text("mine")

    with pytest.raises(FileError, match="holds mine"):
        meanwhile()
    assert (tmp_path / "x" / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/..", "\0", "a\0b", "x" * 300])
def test_odd_paths_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError), artifact.writing(Path(name), "corpus"):
        pytest.fail("refused too late")
    with pytest.raises(FileError):
        artifact.write_whole(Path(name), "content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x/", "a/../x", "./x"])
def test_other_spellings_of_a_name_are_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    made(Path(name))
    assert artifact.verify(tmp_path / "x").name == "x"


@pytest.mark.parametrize("renames", range(4))
def test_a_killed_replacement_leaves_the_old_one_or_the_new_one(tmp_path: Path, renames: int) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from shoestring import artifact\n"
        "rename, left = Path.rename, [int(sys.argv[1])]\n"
        "def dying(self, target):\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1; return rename(self, target)\n"
        "Path.rename = dying\n"
        "with artifact.writing(Path(sys.argv[2]), 'corpus', {'n': 2}) as folder: (folder / 'new').write_text('new')\n"
    )
    made(tmp_path / "x", {"n": 1})
    killed = subprocess.run([sys.executable, "-c", program, str(renames), str(tmp_path / "x")], check=False)
    assert killed.returncode == (-9 if renames < 3 else 0)
    artifact.sweep(tmp_path, "x")
    assert artifact.verify(tmp_path / "x").about == {"n": 1 if renames < 2 else 2}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_draft_in_work_is_never_swept_whatever_its_number_and_an_abandoned_one_of_a_living_number_is(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from shoestring.drafts import drafting\n"
        "with drafting(Path(sys.argv[1])) as draft: print(draft.name, flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "x")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    name = other.stdout.readline().strip()
    (tmp_path / f".y.draft-{other.pid}").mkdir()
    artifact.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    other.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_in_a_folder_of_the_users_only_what_was_left_of_one_name_is_swept(tmp_path: Path) -> None:
    for name in (".x.draft-7", ".essay.draft-2", ".x.draft-two", "x.draft-7"):
        (tmp_path / name).write_text("")
    artifact.sweep(tmp_path, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".essay.draft-2", ".x.draft-two", "x.draft-7"]


def test_every_flipped_bit_of_the_manifest_is_seen(tmp_path: Path) -> None:
    made(tmp_path / "x", {"facts": {"tokens": 12}})
    file = tmp_path / "x" / artifact.MANIFEST
    good = file.read_bytes()
    for place in range(len(good)):
        file.write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :])
        with pytest.raises(FileError):
            artifact.verify(tmp_path / "x")


def test_numbers_as_keys_and_odd_names_survive(tmp_path: Path) -> None:
    made(tmp_path / "x", {"by size": {2: "two", 10: "ten"}, "source": os.fsdecode(b"caf\xe9")})
    assert artifact.verify(tmp_path / "x").about["by size"] == {"2": "two", "10": "ten"}


def test_a_file_that_does_not_belong_is_seen(tmp_path: Path) -> None:
    (made(tmp_path / "x") / ".DS_Store").write_text("")
    artifact.verify(tmp_path / "x")
    (tmp_path / "x" / "sub" / "more").write_text("")
    with pytest.raises(DamagedArtifact, match="sub/more: damaged"):
        artifact.verify(tmp_path / "x")
