"""The same steps on a local Ray cluster give the same bytes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra 'cluster' (ray)"),
]

PROGRAM = """
import sys
from pathlib import Path
runner, source, out = sys.argv[1:]
from shoestring.data import engine, Corpus, Exact, MinHash, Quality
from shoestring.measure import Meter, find
from shoestring.technique import Task, Watch

if runner == "ray":
    import daft, ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    daft.set_runner_ray()
hardware, state = find("cpu"), {}
for technique in (Corpus(source=source), Quality(), Exact(), MinHash()):
    place = Path(out) / technique.name
    task, watch = Task(place, place, hardware), Watch(Meter(hardware), lambda text: None)
    state = technique.apply(state, task, watch)
"""


def test_a_ray_cluster_gives_the_same_artifacts(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "LICENSE").read_text().split()
    lines = []
    for i in range(60):
        words = [*text[i * 7 : i * 7 + 400], f"number{i}"]
        lines.append({"text": " ".join(words), "source": "web"})
        lines += [{"text": "\n".join(words[:-1]), "source": "web"}] * (i % 3)
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for runner in ("native", "ray"):
        command = [sys.executable, "-c", PROGRAM, runner, str(tmp_path / "in.jsonl"), str(tmp_path / runner)]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
    for step in ("quality", "exact", "minhash"):
        for file in ("documents.parquet", "drops.parquet"):
            assert (tmp_path / "native" / step / file).read_bytes() == (tmp_path / "ray" / step / file).read_bytes()
    drops = json.loads((tmp_path / "ray" / "minhash" / "artifact.json").read_text())["about"]["drops"]
    assert drops["near-duplicate"] > 20
