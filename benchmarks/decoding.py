"""Decoding beside transformers: the same weights, prompts and tokens in one process, the two taking turns.

    python benchmarks/decoding.py [--model smollm2-135m] [--batches 1 8] [--repeats 5] [--threads 1]

Greedy, fp32, eager on both sides; every answer has the same length, so no row leaves early. A rate counts the tokens after
the first, whose time is the prefill's. Wall time suffers from whatever else runs; CPU-seconds of this process suffer less,
so both are kept, with every repeat. The result goes to benchmarks/results/decoding-cpu.json. Needs the `hf` extra.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from shoestring import infer, measure
from shoestring import model as room
from shoestring.model import Transformer

RESULT = Path(__file__).parent / "results" / "decoding-cpu.json"
Clock = tuple[float, float]
Run = tuple[list[list[int]], Clock, list[Clock]]


def clock() -> Clock:
    """Wall time and this process' CPU time, in seconds."""
    return time.perf_counter(), time.process_time()


def ours(model: Transformer, prompts: list[list[int]], count: int) -> Run:
    """Our answers, the start, and the time after each step."""
    last, ticks = len(prompts) - 1, []
    start = clock()

    def on_token(number: int, token: int) -> None:
        if number == last:
            ticks.append(clock())

    answers = infer.generate(model, prompts, infer.Sampling(temperature=0, max_tokens=count), on_token=on_token)
    return answers, start, ticks


def theirs(model: Any, prompts: list[list[int]], count: int) -> Run:
    """The same by transformers' `generate`."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    ticks: list[Clock] = []

    class Tick(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **rest: Any) -> torch.Tensor:
            ticks.append(clock())
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    start = clock()
    with torch.inference_mode():
        made = model.generate(
            torch.tensor(prompts),
            attention_mask=torch.ones(len(prompts), len(prompts[0]), dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([Tick()]),
        )
    return [row[len(prompts[0]) :] for row in made.tolist()], start, ticks


def figures(run: Run, batch: int) -> dict[str, float]:
    """Rates of one run."""
    _, start, ticks = run
    made = batch * (len(ticks) - 1)
    return {
        "decode_tokens_per_second": made / (ticks[-1][0] - ticks[0][0]),
        "decode_tokens_per_cpu_second": made / (ticks[-1][1] - ticks[0][1]),
        "first_token_seconds": ticks[0][0] - start[0],
        "first_token_cpu_seconds": ticks[0][1] - start[1],
    }


def compare(peers: dict[str, Callable[..., Run]], batch: int, prompt: int, count: int, repeats: int, vocabulary: int) -> dict:
    """One row of the result: both peers by turns, after a short run each to warm up."""
    draw = torch.Generator().manual_seed(batch)
    prompts = torch.randint(0, vocabulary, (batch, prompt), generator=draw).tolist()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    answers = {}
    for peer in peers.values():
        peer(prompts, 4)
    for repeat in range(repeats):
        order = list(peers) if repeat % 2 == 0 else list(peers)[::-1]
        for name in order:
            run = peers[name](prompts, count)
            answers[name] = run[0]
            runs[name].append(figures(run, batch))
    first, second = answers.values()
    same = sum(a == b for mine, other in zip(first, second) for a, b in zip(mine, other)) / (batch * count)
    medians = {name: {key: median(one[key] for one in each) for key in each[0]} for name, each in runs.items()}
    ratios = {
        key: median(mine[key] / other[key] for mine, other in zip(runs["shoestring"], runs["transformers"]))
        for key in ("decode_tokens_per_second", "decode_tokens_per_cpu_second")
    }
    return {"batch": batch, "same_tokens": same, "median": medians, "median_ratio_of_pairs": ratios, "runs": runs}


def main() -> None:
    """Run it, print a table, write the result."""
    import transformers

    read = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    read.add_argument("--model", default="smollm2-135m")
    read.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    read.add_argument("--prompt", type=int, default=128)
    read.add_argument("--tokens", type=int, default=33)
    read.add_argument("--repeats", type=int, default=5)
    read.add_argument("--threads", type=int, default=1)
    given = read.parse_args()
    torch.set_num_threads(given.threads)
    transformers.utils.logging.set_verbosity_error()
    model, tokenizer = room.load(given.model)
    with tempfile.TemporaryDirectory() as folder:
        room.save(model, tokenizer, Path(folder) / "same")
        other = transformers.AutoModelForCausalLM.from_pretrained(Path(folder) / "same", dtype=torch.float32).eval()
    peers: dict[str, Callable[..., Run]] = {
        "shoestring": lambda prompts, count: ours(model, prompts, count),
        "transformers": lambda prompts, count: theirs(other, prompts, count),
    }
    load = os.getloadavg()
    rows = []
    for batch in given.batches:
        row = compare(peers, batch, given.prompt, given.tokens, given.repeats, model.config.vocabulary)
        rows.append(row)
        for name, one in row["median"].items():
            print(
                f"batch {batch:3} {name:13} {one['decode_tokens_per_second']:7.1f} tokens/s "
                f"{one['decode_tokens_per_cpu_second']:7.1f} tokens/CPU-s  first after {one['first_token_seconds']:.3f} s"
            )
        wall, processor = row["median_ratio_of_pairs"].values()
        print(f"batch {batch:3} ratio wall {wall:.2f}, CPU {processor:.2f}; {row['same_tokens']:.1%} of the tokens are the same")
    record = {
        "what": "greedy decoding, fp32, eager",
        "model": given.model,
        "settings": {key: value for key, value in vars(given).items() if key != "model"},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
        "machine": {"processor": platform.processor() or platform.machine(), "threads": measure.threads(), "load_before": load},
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"written: {RESULT}")


if __name__ == "__main__":
    main()
