"""Training speed: our loop and nanoGPT's own model and step, in turns, in one process, on the same random tokens.

    python benchmarks/training.py --nanogpt DIR            # DIR: a checkout of karpathy/nanoGPT (only its model.py is read)
    python benchmarks/training.py --nanogpt DIR --device cpu --tiny

The shape is GPT-2's 124M: 12 layers of 768, vocabulary 50304, context 1024, 524,288 tokens a step in micro-batches of 64. Each
contender is built afresh for every repeat, warms up, and is then timed over whole optimizer steps, the device synchronised at
both ends; what each loop does beside the step (reading batches, reading the loss, logging) is inside. Figures are medians.

Two conventions for MFU are given: `mfu` counts attention's full square as PaLM did (arXiv 2204.02311, appendix B; nanoGPT's own
6 N + 12 L H Q T), `mfu_causal` the causal half only (shoestring.model.cost). The peak is 989.5 TFLOP/s, dense bf16.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shoestring.architecture import ModelConfig, counts
from shoestring.data.loader import Loader
from shoestring.model import Transformer
from shoestring.train import Around, Callback, Plan, Training, train

PEAK = 989.5e12
GPT2 = {"vocabulary": 50304, "width": 768, "layers": 12, "heads": 12, "context": 1024}
TINY = {"vocabulary": 512, "width": 64, "layers": 2, "heads": 4, "context": 64}


class Window(Callback):
    """Reads clock, energy counter and allocator once the warm-up is over, and again at the end."""

    def __init__(self, device: str, warm: int, counter: Callable[[], float] | None) -> None:
        self.device, self.warm, self.counter = device, warm, counter

    def after_step(self, model: Any, optimizer: Any, step: int) -> None:
        if step + 1 == self.warm:
            self.open()

    def open(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.joules = self.counter() if self.counter else 0.0
        self.start = time.perf_counter()

    def close(self, tokens: int) -> dict[str, float]:
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.start
        found = {"tokens_per_second": tokens / seconds}
        if self.counter:
            found["joules_per_million"] = (self.counter() - self.joules) / tokens * 1e6
        if self.device == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return found


def energy_counter(device: str) -> Callable[[], float] | None:
    """Joules since the driver started, from NVML; None where there is no such counter."""
    if device != "cuda":
        return None
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3


def ours(args: argparse.Namespace, shape: dict[str, int], data: np.ndarray, warm: int, **settings: Any) -> dict[str, float]:
    """Our loop, as `pretrain` calls it."""
    config = ModelConfig(**shape, position="learned", feed_forward="gelu", norm="layernorm")
    model = Transformer(config).initialise(0).to(args.device)
    loader = Loader(data, np.array([0, len(data)]), args.batch, config.context, seed=1)
    window = Window(args.device, warm, energy_counter(args.device))
    compiled = "none" if args.no_compile else "regional"
    log = train(
        model,
        loader,
        Plan(warm + args.steps, 6e-4, min(10, warm + args.steps), micro_batches=args.batch // args.micro),
        settings=Training(**{"precision": "bf16", "compile": compiled, "log_every": 5, **settings}),
        around=Around(callbacks=(window,)),
    )
    found = window.close(args.steps * args.batch * config.context)
    return {**found, "loss": log[-1]["loss"]}


def nanogpt(args: argparse.Namespace, shape: dict[str, int], data: np.ndarray, warm: int) -> dict[str, float]:
    """nanoGPT's model and optimizer in the order of its train.py: compiled whole, bf16 autocast, reading during backward."""
    module = _module(Path(args.nanogpt) / "model.py")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(1337)
    context, parts = shape["context"], args.batch // args.micro
    config = module.GPTConfig(
        block_size=context,
        vocab_size=shape["vocabulary"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
        n_embd=shape["width"],
        dropout=0.0,
        bias=False,
    )
    model = module.GPT(config).to(args.device)
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), args.device)
    forward = model if args.no_compile else torch.compile(model)
    window = Window(args.device, warm, energy_counter(args.device))

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        places = torch.randint(len(data) - context, (args.micro,))
        x = torch.stack([torch.from_numpy(data[i : i + context].astype(np.int64)) for i in places])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + context].astype(np.int64)) for i in places])
        if args.device == "cuda":
            x, y = x.pin_memory(), y.pin_memory()
        return x.to(args.device, non_blocking=True), y.to(args.device, non_blocking=True)

    inputs, targets = batch()
    for step in range(warm + args.steps):
        if step == warm:
            window.open()
        for _ in range(parts):
            with torch.autocast(args.device, dtype=torch.bfloat16):
                _, loss = forward(inputs, targets)
                loss = loss / parts
            inputs, targets = batch()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = loss.item() * parts
    return {**window.close(args.steps * args.batch * context), "loss": last}


def hugging_face(args: argparse.Namespace, shape: dict[str, int], data: np.ndarray, warm: int) -> dict[str, float]:
    """transformers' Llama of the same width and depth, compiled, sdpa, in the same plain step."""
    from transformers import LlamaConfig, LlamaForCausalLM

    context, parts = shape["context"], args.batch // args.micro
    config = LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["width"] * 8 // 3,
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        max_position_embeddings=context,
        tie_word_embeddings=True,
    )
    torch.set_float32_matmul_precision("high")
    model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa").to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, fused=args.device == "cuda")
    forward = model if args.no_compile else torch.compile(model)
    window = Window(args.device, warm, energy_counter(args.device))
    loader = Loader(data, np.array([0, len(data)]), args.batch, context, seed=1)
    for step in range(warm + args.steps):
        if step == warm:
            window.open()
        for tokens in loader.batch(step).tokens_BT.split(args.micro):
            tokens = tokens.to(args.device)
            with torch.autocast(args.device, dtype=torch.bfloat16):
                loss = forward(input_ids=tokens, labels=tokens, use_cache=False).loss / parts
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = loss.item() * parts
    return {**window.close(args.steps * args.batch * context), "loss": last}


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if spec is None or not path.is_file():
        raise SystemExit(f"{path}: not there; give --nanogpt the folder of a nanoGPT checkout")
    module = sys.modules.get("nanogpt_model")
    if module is None:
        module = sys.modules["nanogpt_model"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All repeats of all contenders, in turns."""
    shape = TINY if args.tiny else GPT2
    data = np.random.default_rng(0).integers(0, shape["vocabulary"], 20 * args.batch * shape["context"] + 1, dtype=np.uint16)
    contenders: dict[str, Callable[..., dict[str, float]]] = {"shoestring": ours}
    for change in args.variant:
        settings = json.loads(change)
        contenders[f"shoestring {change}"] = lambda *given, settings=settings: ours(*given, **settings)
    if args.nanogpt:
        contenders["nanoGPT"] = nanogpt
    if args.transformers:
        contenders["transformers Llama"] = hugging_face
    config = ModelConfig(**shape, position="learned", feed_forward="gelu", norm="layernorm")
    attention = 12 * len(config.layers) * config.width * config.context
    square = 6 * (counts.parameters(config) - config.context * config.width) + attention
    causal = counts.training_flops(config, 1)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for repeat in range(args.repeats):
        for name, contender in contenders.items():
            gc.collect()
            if args.device == "cuda":
                torch.cuda.empty_cache()
            before = time.perf_counter()
            found = contender(args, shape, data, args.warm)
            found |= {"mfu": found["tokens_per_second"] * square / PEAK, "mfu_causal": found["tokens_per_second"] * causal / PEAK}
            results[name].append(found)
            print(f"repeat {repeat + 1} {name}: {_line(found)} [{time.perf_counter() - before:.0f} s]", flush=True)
    medians = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()}
    return {
        "what": "training, GPT-2 124M shape" if not args.tiny else "training, tiny shape",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(args.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "tokens_per_step": args.batch * shape["context"],
        "micro_batch": args.micro,
        "steps": args.steps,
        "repeats": args.repeats,
        "flops_per_token": {"mfu": square, "mfu_causal": causal, "peak": PEAK},
        "median": medians,
        "runs": results,
    }


def _machine(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _line(found: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" if value < 1e4 else f"{key} {value:,.0f}" for key, value in found.items())


def table(record: dict[str, Any]) -> str:
    """The medians as a table."""
    columns = ("tokens_per_second", "mfu", "mfu_causal", "peak_gib", "joules_per_million", "loss")
    rows = [
        "| contender | tokens/s | MFU (full square) | MFU (causal) | peak GiB | J per 1M tokens | last loss |",
        "|---" * 7 + "|",
    ]
    for name, found in record["median"].items():
        cells = []
        for column in columns:
            value = found.get(column)
            style = (
                ".1%" if column.startswith("mfu") else ",.0f" if column in ("tokens_per_second", "joules_per_million") else ".2f"
            )
            cells.append("-" if value is None else format(value, style))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def profile(args: argparse.Namespace) -> None:
    """Where the time of our step goes: kernels of two steps by device time."""
    shape = TINY if args.tiny else GPT2
    data = np.random.default_rng(0).integers(0, shape["vocabulary"], 20 * args.batch * shape["context"] + 1, dtype=np.uint16)
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    class Record(Callback):
        def after_step(self, model: Any, optimizer: Any, step: int) -> None:
            if step == 3:
                self.recorder = profiler(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
                self.recorder.__enter__()
            if step == 4:
                torch.cuda.synchronize()
                self.recorder.__exit__(None, None, None)

    config = ModelConfig(**shape, position="learned", feed_forward="gelu", norm="layernorm")
    model = Transformer(config).initialise(0).to(args.device)
    loader = Loader(data, np.array([0, len(data)]), args.batch, config.context, seed=1)
    record = Record()
    settings = Training(precision="bf16", compile="regional")
    plan = Plan(5, 6e-4, micro_batches=args.batch // args.micro)
    train(model, loader, plan, settings=settings, around=Around(callbacks=(record,)))
    print(record.recorder.key_averages().table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=70))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", help="folder of a nanoGPT checkout")
    parser.add_argument("--transformers", action="store_true", help="a row for transformers' Llama")
    parser.add_argument("--variant", action="append", default=[], help="a further row of ours: train.Training settings as JSON")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="timed optimizer steps of a repeat")
    parser.add_argument("--warm", type=int, default=4, help="steps before")
    parser.add_argument("--profile", action="store_true", help="only show where the time of our step goes")
    parser.add_argument("--attention", choices=["auto", "flash", "cudnn"], default="auto", help="kernel to prefer, for trials")
    parser.add_argument("--out", type=Path, help="JSON file for the record")
    args = parser.parse_args()
    args.batch, args.micro = (8, 4) if args.tiny else (512, 64)
    with _preferring(args.attention):
        if args.profile:
            profile(args)
            return
        record = measure(args)
    print(table(record))
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _preferring(attention: str) -> Any:
    if attention == "auto":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    first = SDPBackend.CUDNN_ATTENTION if attention == "cudnn" else SDPBackend.FLASH_ATTENTION
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel([first, *(kernel for kernel in others if kernel != first)], set_priority=True)


if __name__ == "__main__":
    main()
