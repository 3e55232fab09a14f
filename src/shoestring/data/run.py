"""One technique on files: from raw text or a corpus artifact to a new artifact, without a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from shoestring import artifact
from shoestring.artifact import MANIFEST
from shoestring.data.corpus import Corpus
from shoestring.drafts import drafting
from shoestring.errors import FileError, SettingError, file_error
from shoestring.measure import Hardware, Meter
from shoestring.technique import State, Task, Technique, Watch


def run_on_files(
    technique: Technique, source: Path, out: Path, hardware: Hardware, seed: int = 0, **watch: Any
) -> dict[str, Any]:
    """Apply a technique of this room to `source` and make the artifact `out`.

    Args:
        source: a corpus artifact, or text, JSON lines, Parquet or a folder of them, which is read as a corpus first.
        out: the new artifact; an artifact that stands there is replaced, anything else is left alone.
        watch: further fields of `Watch`, such as `note` or `progress`.

    Returns:
        {"kind", "path", "bytes", "about"} of the new artifact.

    Raises:
        FileError: `source` can't be read, or something else than an artifact stands at `out`.
        SettingError: the technique reads something other than a corpus.
    """
    source, out = Path(source), Path(out)
    if set(technique.reads) - {"corpus"} or technique.room != "data":
        raise SettingError(f"{technique.name}: works on {', '.join(technique.reads) or technique.gives}, not on text files")
    out = artifact.vacant(out)
    if source.resolve() == out.resolve():
        raise FileError(f"{out}: is the input as well; choose another name for the output")
    try:
        with drafting(out.with_name(f"{out.name}.scratch")) as scratch, Meter(hardware) as meter:
            _apply(technique, source, Task(out, scratch, hardware.with_(device="cpu"), seed), Watch(meter, **watch))
    except OSError as error:
        raise file_error(out, error) from error
    found = artifact.manifest(out)
    return {"kind": found.kind, "path": str(out), "bytes": found.bytes, "about": found.about}


def _apply(technique: Technique, source: Path, task: Task, watch: Watch) -> None:
    if isinstance(technique, Corpus):
        technique.model_copy(update={"source": str(source)}).apply({}, task, watch)
        return
    if (source / MANIFEST).is_file():
        state: State = {"corpus": source}
    else:
        state = Corpus(source=str(source)).apply({}, replace(task, out=task.scratch / "corpus"), watch)
    technique.apply(state, task, watch)
