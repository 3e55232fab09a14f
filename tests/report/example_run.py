"""A run folder as `recipe.run` leaves it, written by hand: every shape of figure, and hostile text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import yaml

from shoestring import artifact
from shoestring.measure import Kind, Quantity, Usage, counted, estimated, measured, predicted, unknown

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"> & 'quoted' \u2028 end"
VERSIONS = {"python": "3.11.2", "shoestring": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6"}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
MIB = 2**20

# step, room, gives, seconds (predicted, measured), FLOPs, peak MiB, bytes on disk (predicted, measured), bits per byte
STEPS: tuple[tuple[str, str, str, tuple[float, float], float | None, float, tuple[float | None, float], float | None], ...] = (
    ("corpus", "data", "corpus", (1.9, 2.31), None, 210, (3.9e6, 3.71e6), None),
    ("quality", "data", "corpus", (3.1, 2.84), None, 260, (3.7e6, 3.52e6), None),
    ("exact", "data", "corpus", (0.8, 0.61), None, 255, (3.7e6, 3.44e6), None),
    ("minhash", "data", "corpus", (2.0, 2.77), None, 330, (3.6e6, 3.13e6), None),
    ("tokenize", "data", "tokens", (6.4, 5.92), None, 410, (5.6e6, 5.88e6), None),
    ("plan", "plan", "plan", (0.01, 0.004), None, 0, (None, 2813), None),
    ("pretrain", "train", "checkpoint", (402.0, 388.4), 6.1e13, 905, (23.6e6, 23.61e6), 1.8213),
    ("wanda", "compress", "checkpoint", (6.5, 7.4), 3.3e11, 640, (23.6e6, 23.61e6), 1.9874),
    ("distil", "compress", "checkpoint", (61.0, 66.9), 8.8e12, 1210, (23.6e6, 23.61e6), 1.8529),
    ("gptq", "compress", "checkpoint", (24.0, 31.7), 3.9e11, 720, (7.4e6, 7.44e6), 1.8712),
    ("sample", "infer", "text", (2.2, 1.63), 5.1e9, 480, (None, 1204), None),
)


def write_run(folder: Path, *, status: str = "finished", steps: int = 99, points: int = 300, hostile: str = HOSTILE) -> Path:
    """Fill `folder` with a run of the first `steps` steps, its store beside it; returns the folder."""
    store = folder.parent / "store"
    rows: list[dict[str, Any]] = []
    states: dict[str, dict[str, str]] = {}
    state: dict[str, str] = {}
    before: dict[str, Any] | None = None
    for number, (step, room, gives, seconds, flops, peak, disk, bits) in enumerate(STEPS[:steps]):
        key = f"{step}-{number:016x}"
        _artifact(store / key, gives, step, points, hostile)
        state[gives] = f"../store/{key}"
        states[step] = dict(state)
        row = _row(step, room, key, seconds, flops, peak, disk)
        row["reused"] = step in ("corpus", "quality")
        if bits is not None:
            after = _quality(bits)
            foreseen = _foreseen(bits) if step == "pretrain" else None
            row["quality"] = {"predicted": foreseen, "before": before, "after": after, "difference": _difference(before, bits)}
            before = after
        rows.append(row)
        if bits is not None:
            rows.append(_evaluation(step, store, number, bits))
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "recipe": "quickstart",
        "status": status,
        "started": "2026-11-22T02:14:07+00:00",
        "ended": "2026-11-22T02:23:16+00:00",
        "hardware": {"name": "cpu", "device": "cpu", "count": 1, "calibrated": "2026-11-22, torch 2.13.0+cpu"},
        "threads": 2,
        "versions": VERSIONS,
        "budget": {"time": 540.0, "memory": 8e9, "energy": None, "money": None},
        "states": states,
        "store": "../store",
    }
    (folder / "run.json").write_text(json.dumps(record), "utf-8")
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = {
        "name": "quickstart",
        "seed": 0,
        "steps": [{"corpus": {"source": "python-stdlib"}}, {"sample": {"prompt": hostile}}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), "utf-8")
    return folder


def _difference(before: dict[str, Any] | None, bits: float) -> dict[str, Any] | None:
    """Paired with the step before; the last one is within the noise."""
    if before is None:
        return None
    change, half = bits - before["bits_per_byte"]["value"], 0.02
    method = "64 windows, paired, Student's t"
    return {"bits_per_byte": Quantity(change, "bit/B", Kind.MEASURED, method, (change - half, change + half)).to_json()}


def _row(
    step: str,
    room: str,
    key: str,
    seconds: tuple[float, float],
    flops: float | None,
    peak: float,
    disk: tuple[float | None, float],
) -> dict[str, Any]:
    no_model = unknown("B", "a few kB at the most", Kind.PREDICTED)
    return {
        "step": step,
        "technique": step,
        "room": room,
        "settings": {"source": "python-stdlib"} if step == "corpus" else {"text": HOSTILE} if step == "sample" else {},
        "key": key,
        "reused": False,
        "automatic": False,
        "predicted": _usage(seconds[0], flops, peak * 1.1, Kind.PREDICTED).to_json(),
        "measured": _usage(seconds[1], flops, peak, Kind.MEASURED).to_json(),
        "disk": {
            "predicted": (no_model if disk[0] is None else predicted(disk[0], "B", "weights at their bits")).to_json(),
            "measured": counted(disk[1], "B", "files of the artifact").to_json(),
        },
        "quality": {"before": None, "after": None},
        "numbers": None,
        "started": "2026-11-22T02:15:00+00:00",
        "versions": VERSIONS,
        "artifact": f"runs/store/{key}",
    }


def _usage(seconds: float, flops: float | None, peak: float, kind: Kind) -> Usage:
    was_made = kind is Kind.MEASURED

    def figure(value: float, unit: str, done: Kind = Kind.MEASURED, method: str = "") -> Quantity:
        return Quantity(value, unit, done if was_made else Kind.PREDICTED, method)

    joules = seconds * 30
    return Usage(
        seconds=figure(seconds, "s", method="wall clock"),
        flops=unknown("FLOP", "text processing has no FLOPs to speak of", Kind.COUNTED if was_made else kind)
        if flops is None
        else figure(flops if was_made else flops * 0.98, "FLOP", Kind.COUNTED, "from the architecture"),
        peak_memory=measured(peak * MIB, "B", "resident set") if was_made else predicted(peak * MIB, "B"),
        energy=estimated(joules, "J", "30 W x time") if was_made else predicted(joules, "J", "30 W x time"),
        carbon=estimated(joules / 3.6e6 * 0.445, "kgCO2e", "0.445 kg/kWh") if was_made else predicted(joules / 8.1e6, "kgCO2e"),
        money=figure(seconds / 3600 * 0.08, "USD", Kind.ESTIMATED, "$0.08/h (assumed) x measured time"),
        communication=figure(0.0, "B", Kind.COUNTED, "one device"),
    )


def _quality(bits: float) -> dict[str, Any]:
    interval = (bits - 0.011, bits + 0.011)
    return {
        "bits_per_byte": Quantity(bits, "bit/B", Kind.MEASURED, "96 held-out windows of 256", interval).to_json(),
        "perplexity": measured(math.exp(bits * 2.4), "").to_json(),
    }


def _foreseen(bits: float) -> dict[str, Any]:
    return {"bits_per_byte": predicted(bits * 1.02, "bit/B", "a scaling law").to_json()}


def _evaluation(step: str, store: Path, number: int, bits: float) -> dict[str, Any]:
    key = f"evaluate-{number:016x}"
    with artifact.writing(store / key, "numbers") as draft:
        (draft / "numbers.json").write_text(json.dumps(_quality(bits)), "utf-8")
    row = _row(f"evaluate@{step}", "evaluate", key, (2.0, 2.2), 2.2e11, 380, (None, 412))
    return {**row, "technique": "evaluate", "automatic": True, "numbers": _quality(bits)}


def _artifact(place: Path, gives: str, step: str, points: int, hostile: str) -> None:
    about: dict[str, Any] = {"facts": {}}
    with artifact.writing(place, gives, about) as draft:
        if gives == "corpus":
            about |= {
                "sources": {"code": {"documents": 1021, "bytes": 8_912_133}, "prose": {"documents": 212, "bytes": 2_004_871}},
                "drops": {} if step == "corpus" else {f"{step}: too short": 41, f"{step}: {hostile[:9]}": 7},
            }
            texts = [hostile, "x = 1", "pass"]
            drops = {"id": ["a", "b", "c"], "source": ["code"] * 3, "reason": ["too short"] * 3, "text": texts}
            parquet.write_table(arrow.table(drops), draft / "drops.parquet")
        elif gives == "plan":
            (draft / "plan.json").write_text(json.dumps({"formulas": _formulas()}), "utf-8")
        elif gives == "checkpoint":
            (draft / "config.json").write_text(json.dumps(CONFIG), "utf-8")
            about["facts"] = {"sparsity": 0.5, "bits_per_weight": 4.25 if step == "gptq" else 32.0}
            if step in ("pretrain", "distil"):
                (draft / "training.jsonl").write_text("".join(_training(step, points)), "utf-8")
        elif gives == "text":
            said = [
                {"prompt": "def parse(", "text": "self, text):\n        return self.text\n"},
                {"prompt": hostile, "text": hostile},
            ]
            (draft / "samples.json").write_text(json.dumps(said), "utf-8")
        else:
            (draft / "data.bin").write_bytes(b"\0" * 64)


def _training(step: str, points: int) -> list[str]:
    start, floor = (8.3, 2.9) if step == "pretrain" else (3.4, 3.0)
    logged = []
    for number in range(points):
        loss = floor + (start - floor) * math.exp(-4.5 * (number + 1) / points) + 0.05 * math.sin(number * 1.7)
        logged.append(json.dumps({"step": number, "tokens": (number + 1) * 8192, "loss": loss, "learning_rate": 1e-3}) + "\n")
    return logged


def _formulas() -> list[dict[str, Any]]:
    return [
        {
            "name": "training seconds",
            "value": 402.0,
            "unit": "s",
            "formula": "budget - the other steps - 5 % reserve",
            "source": "the recipe's budget",
        },
        {
            "name": "parameters",
            "value": 6242560,
            "formula": "N = (a A / (b B))^(1/(a+b)) (C/6)^(b/(a+b))",
            "source": "arXiv 2203.15556",
        },
        {"name": "tokens", "value": 2_457_600, "formula": "D = C / (6 N)", "source": "arXiv 2203.15556, approach 3"},
        {"name": "learning rate", "value": 0.00187, "formula": "0.38 N^-0.34", "source": HOSTILE},
    ]


def write_composition(folder: Path) -> Path:
    """Fill `folder` with the `compose.json` of a factorial over two factors; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [
        {
            "present": present,
            "repeat": 0,
            "seed": 0,
            "run": f"runs/{'+'.join(present) or 'none'}",
            "steps": 6,
            "reused": 0 if number == 0 else 4,
            "figures": {
                "seconds": measured(400.0 + 31.5 * len(present), "s").to_json(),
                "disk": counted(size, "B").to_json(),
                "bits_per_byte": measured(bits, "bit/B").to_json(),
            },
        }
        for number, (present, size, bits) in enumerate(
            [([], 23.61e6, 1.82), (["wanda"], 23.61e6, 1.99), (["gptq"], 7.44e6, 1.84), (["wanda", "gptq"], 7.44e6, 2.01)]
        )
    ]
    disk = {"figure": "disk", "unit": "B", "baseline": 23.61e6, "gains": {"wanda": 1.0, "gptq": 0.315}}
    bits_ = {"figure": "bits_per_byte", "unit": "bit/B", "baseline": 1.82, "gains": {"wanda": 1.0934, "gptq": 1.011}}
    record = {
        "recipe": "quickstart",
        "factors": ["wanda", "gptq"],
        "repeats": 1,
        "steps": 24,
        "distinct": 12,
        "computed": 12,
        "reused": 12,
        "versions": VERSIONS,
        "started": "2026-11-22T02:14:07+00:00",
        "cells": cells,
        "combinations": [
            {
                **disk,
                "product": 0.315,
                "measured": 0.315,
                "interaction": 1.0,
                "additive": 1.0,
                "interval": [1, 1],
                "method": "counted",
            },
            {
                **bits_,
                "product": 1.1054,
                "measured": 1.1044,
                "interaction": 0.9991,
                "additive": 1.0,
                "interval": [0.981, 1.0175],
                "method": "evaluation standard error",
            },
        ],
        "effects": [
            {"figure": "disk", "factors": ["gptq"], "ratio": 0.315, "interval": [0.315, 0.315], "method": "counted"},
            {"figure": "bits_per_byte", "factors": ["wanda", "gptq"], "ratio": 0.999, "interval": None, "method": "one run"},
        ],
        "missing": {"communication": "0 for the baseline; a ratio to it means nothing"},
    }
    (folder / "compose.json").write_text(json.dumps(record), "utf-8")
    return folder
