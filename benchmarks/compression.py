"""Compression: our techniques and llm-compressor's on one model, one calibration, one test text, in turns.

    python benchmarks/compression.py --model smollm2-135m --calibration VALID.txt[.xz] --test TEST.txt[.xz]
    python benchmarks/compression.py ... --peer-python VENV/bin/python      # an environment that has llm-compressor
    python benchmarks/compression.py ... --elsewhere OTHER.jsonl.xz         # a second test text, outside the calibration's domain

The protocol: the first 32 x 512 tokens of the calibration text; perplexity over the first 6 windows of 2,048 tokens of the joined
test text, each window on its own, its first token not counted, products in bfloat16 on both sides; of the second text likewise,
spread over all of it. A JSONL file is read by its field `text`. Embedding and head are left alone. The peer quantizes with its
default observer, and in the rows that end in -mse with its best one (`memoryless_mse`). CPU-seconds are user and system time of
the process while it compresses (loading, saving and evaluating left out), with the same number of threads. Every contender runs
in a process of its own. Without --peer-python the peer's rows are those published in the project's baselines, and say so.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

SAMPLES, LENGTH, WINDOWS, CONTEXT = 32, 512, 6, 2048

PUBLISHED = {
    "rtn-g64": {"perplexity": 31.08, "cpu_seconds": 1.5},
    "gptq-g64": {"perplexity": 28.76, "cpu_seconds": 155.0},
    "gptq-g64-mse": {"perplexity": 27.05, "cpu_seconds": None},
    "wanda-50": {"perplexity": 47.98, "cpu_seconds": 98.0},
}
"""llm-compressor 0.14 on another machine of two cores, as published in the project's baselines."""

OURS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "none": [],
    "gptq-g64-mse": [("GPTQ", {"group_size": 64, "search": "mse"})],
    "rtn-g64": [("RTN", {"group_size": 64})],
    "rtn-g64-mse": [("RTN", {"group_size": 64, "search": "mse"})],
    "rtn-g64-zeros": [("RTN", {"group_size": 64, "symmetric": False})],
    "gptq-g64": [("GPTQ", {"group_size": 64})],
    "gptq-g64-extremes": [("GPTQ", {"group_size": 64, "search": "none"})],
    "gptq-g64-natural": [("GPTQ", {"group_size": 64, "act_order": False})],
    "gptq-g64-3bit": [("GPTQ", {"group_size": 64, "bits": 3})],
    "wanda-50": [("Wanda", {"sparsity": 0.5})],
    "wanda-2:4": [("Wanda", {"pattern": "2:4"})],
    "wanda-50+gptq-g64": [("Wanda", {"sparsity": 0.5}), ("GPTQ", {"group_size": 64})],
    "magnitude-50": [("Magnitude", {"sparsity": 0.5})],
}
DEFAULT = ("none", "rtn-g64", "rtn-g64-zeros", "gptq-g64", "gptq-g64-mse", "gptq-g64-extremes", "wanda-50")
PEER = ("rtn-g64", "rtn-g64-mse", "gptq-g64", "gptq-g64-mse", "wanda-50")
"""Rows that the peer has too."""


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    cpu, wall = cpu_seconds(), time.perf_counter()
    result = work()
    return result, {"cpu_seconds": cpu_seconds() - cpu, "wall_seconds": time.perf_counter() - wall}


@torch.no_grad()
def perplexities(logits: Callable[[torch.Tensor], torch.Tensor], tests: dict[str, torch.Tensor]) -> dict[str, float]:
    """Perplexity on each text; the key is that of the result."""
    found = {}
    for name, windows in tests.items():
        lost = counted = 0.0
        for window in windows:
            scores = logits(window[None])[0, :-1].float()
            lost += torch.nn.functional.cross_entropy(scores, window[1:], reduction="sum").item()
            counted += CONTEXT - 1
        found[name] = math.exp(lost / counted)
    return found


def windows_of(tokens: list[int], spread: bool) -> torch.Tensor:
    """The windows that a text is measured on: its first ones, or some from all over it."""
    there = torch.tensor(tokens[: len(tokens) // CONTEXT * CONTEXT], dtype=torch.long).view(-1, CONTEXT)
    if len(there) < WINDOWS:
        raise SystemExit(f"a test text has {len(tokens)} tokens; {WINDOWS} windows of {CONTEXT} are needed")
    return there[:: len(there) // WINDOWS][:WINDOWS] if spread else there[:WINDOWS]


def ours(row: str, source: str, calibration: torch.Tensor, tests: dict[str, torch.Tensor]) -> dict[str, Any]:
    import shoestring.compress as room
    from shoestring.model import load
    from shoestring.model.checkpoint import facts

    model, _ = load(source)
    made = [getattr(room, kind)(**settings) for kind, settings in OURS[row]]
    _, used = timed(lambda: [technique.apply_to(model, calibration) for technique in made])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = perplexities(model, tests)
    return {"side": "shoestring", "row": row, **found, **used, **facts(model)}


def peer(row: str, source: str, calibration: torch.Tensor, tests: dict[str, torch.Tensor]) -> dict[str, Any]:
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    ids = calibration.tolist()
    data = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
    more = {} if row.startswith("rtn") else {"dataset": data, "max_seq_length": LENGTH, "num_calibration_samples": SAMPLES}
    _, used = timed(lambda: oneshot(model=model, recipe=_peer_recipe(row), **more))
    model.eval()
    found = perplexities(lambda tokens: model(tokens).logits, tests)
    return {"side": "llm-compressor", "row": row, **found, **used}


def _peer_recipe(row: str) -> Any:
    if row == "wanda-50":
        from llmcompressor.modifiers.pruning import WandaPruningModifier

        return WandaPruningModifier(sparsity=0.5, targets=[r"re:.*layers\.\d+$"], ignore=["re:.*lm_head"])
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 64}
    if row.endswith("-mse"):
        weights["observer"] = "memoryless_mse"  # its best; the default takes each group's extremes
    if row.startswith("rtn"):
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return QuantizationModifier(config_groups={"all": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"])
    try:
        from llmcompressor.modifiers.gptq import GPTQModifier
    except ImportError:
        from llmcompressor.modifiers.quantization import GPTQModifier
    weights["actorder"] = "weight"  # its name for act-order with static groups
    return GPTQModifier(config_groups={"all": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"])


def read(path: Path) -> str:
    opener = lzma.open if path.suffix == ".xz" else open  # text mode: Windows line ends are read as line ends
    with opener(path, "rt", encoding="utf-8") as stream:
        if ".jsonl" in path.suffixes:
            return "\n\n".join(json.loads(line)["text"] for line in stream)
        return stream.read()


def prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """The tokens of both texts, and the model in the form that the peer reads."""
    from shoestring.model import load, save

    model, tokenizer = load(arguments.model)
    calibration = tokenizer.encode(read(arguments.calibration))[: SAMPLES * LENGTH]
    texts = {"perplexity": arguments.test} | ({"perplexity_elsewhere": arguments.elsewhere} if arguments.elsewhere else {})
    tests = {key: windows_of(tokenizer.encode(read(path)), key != "perplexity") for key, path in texts.items()}
    torch.save({"calibration": torch.tensor(calibration).view(SAMPLES, LENGTH), "tests": tests}, folder / "tokens.pt")
    if arguments.peer_python:
        save(model, tokenizer, folder / "model", dtype=torch.bfloat16)


def contend(python: str, side: str, row: str, source: str, folder: Path, threads: int) -> dict[str, Any]:
    command = [python, str(Path(__file__).resolve()), "--one", side, row, "--model", source, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"side"')]
    if not lines:
        return {"side": side, "row": row, "failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return json.loads(lines[-1])


def one(arguments: argparse.Namespace) -> None:
    side, row = arguments.one
    tokens = torch.load(arguments.folder / "tokens.pt", weights_only=True)
    contender = ours if side == "shoestring" else peer
    result = contender(row, arguments.model, tokens["calibration"], tokens["tests"])
    package = "shoestring" if side == "shoestring" else "llmcompressor"
    print(json.dumps({**result, "version": metadata.version(package), "torch": torch.__version__}), flush=True)


def show(result: dict[str, Any]) -> None:
    name = f"{result['row']:22} {result['side']:15}"
    if "failed" in result:
        print(f"{name} failed: {result['failed']}", flush=True)
        return
    bits = f"{result['bits_per_weight']:6.3f}" if "bits_per_weight" in result else "      "
    source = f"   {result['source']}" if "source" in result else ""
    figures = [result.get(key) for key in ("perplexity", "perplexity_elsewhere", "cpu_seconds")]
    columns = " ".join(" " * 10 if value is None else f"{value:10.2f}" for value in figures)
    print(f"{name} {columns} {bits}{source}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--elsewhere", type=Path, help="a text outside the calibration's domain, to measure on too")
    parser.add_argument("--peer-python", help="the Python of an environment with llm-compressor")
    parser.add_argument("--rows", nargs="*", default=list(DEFAULT), choices=list(OURS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "compression.json")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments)
        return
    if not arguments.calibration or not arguments.test:
        parser.error("give --calibration and --test, two texts")
    results = []
    print(f"{'row':22} {'':15} {'perplexity':>10} {'elsewhere':>10} {'CPU-s':>10} bits per weight")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(arguments, folder)
        for row in arguments.rows:
            results.append(contend(sys.executable, "shoestring", row, arguments.model, folder, arguments.threads))
            show(results[-1])
            if row in PEER and arguments.peer_python:
                source = str(folder / "model")
                results.append(contend(arguments.peer_python, "llm-compressor", row, source, folder, arguments.threads))
            elif row in PUBLISHED:
                results.append({"side": "llm-compressor", "row": row, **PUBLISHED[row], "source": "published in baselines"})
            else:
                continue
            show(results[-1])
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} thread(s)",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "protocol": f"calibration {SAMPLES} x {LENGTH}, perplexity on {WINDOWS} windows of {CONTEXT}",
        "texts": {name: getattr(getattr(arguments, name), "name", None) for name in ("calibration", "test", "elsewhere")},
        "results": results,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
