"""Several ranks, as processes on a CPU: in any layout they learn what one learns, and one goes on from where they were."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.fsdp
import torch.distributed.tensor.parallel  # before the fork: once
from safetensors.torch import load_file
from torch import distributed

from shoestring import artifact
from shoestring.architecture import ModelConfig
from shoestring.errors import SettingError
from shoestring.measure import Meter, find
from shoestring.model import Transformer
from shoestring.technique import Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.train import Around, Callback, KeepZeros, Plan, Pretrain, Training, journal, train
from shoestring.train.parallel.layout import Layout, join

CONFIG = ModelConfig(vocabulary=61, width=32, layers=2, heads=4, kv_heads=2, context=16)
LAYOUTS = {
    "shard": Layout(shard=2),
    "replicate": Layout(replicate=2),
    "tensor": Layout(tensor=2),
}


def batches(step: int) -> dict[str, torch.Tensor]:
    rows_BT = (torch.arange(4)[:, None] * 3 + step + torch.arange(17)) % 61
    targets_BT = rows_BT[:, 1:].clone()
    targets_BT[: step + 1, :9] = -100  # ranks count differently
    return {"tokens": rows_BT[:, :-1], "targets": targets_BT}


class Stop(Exception):
    pass


class Ends(Callback):
    def before_step(self, model: Any, optimizer: Any, step: int) -> None:
        if step == 2:
            raise Stop


def run(scratch: Path, mesh: Any = None, *callbacks: Callback) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Log and whole weights of three steps, with a restart point after each."""
    model = Transformer(CONFIG).initialise(0)
    with torch.no_grad():
        model.blocks[0].mixer.output.weight[:, ::2] = 0
    around = Around(scratch=scratch, callbacks=(KeepZeros(model), *callbacks), mesh=mesh)
    settings = Training(log_every=1, checkpoint_every=1e-9, loss_chunk=8)
    log = train(model, batches, Plan(3, 1e-2, micro_batches=2), settings=settings, around=around)
    logits_BTV = join(model)(batches(0)["tokens"])  # as if it had never been divided
    assert logits_BTV.shape == (4, 16, 61)
    return log, {"logits": logits_BTV.detach(), **{name: p.detach() for name, p in model.named_parameters()}}


def together(ranks: int, work: Callable[[int], None]) -> None:
    """Some processes at the same time, each with its rank; all end well."""
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=work, args=(rank,)) for rank in range(ranks)]
    for each in started:
        each.start()
    for each in started:
        each.join(60)
        each.kill()
    assert [each.exitcode for each in started] == [0] * ranks


def process(rank: int, folder: Path, layout: Layout, ranks: int) -> None:
    """One rank: a whole run, and one that ends after two steps."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), ranks)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    mesh = layout.mesh("cpu")
    found = run(folder / "whole", mesh)
    if rank == 0:
        torch.save(found, folder / "found.pt")
    with pytest.raises(Stop):
        run(folder / "cut", mesh, Ends())
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", LAYOUTS)
def test_ranks_learn_what_one_learns_and_one_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SAVING", 1e9)
    layout = LAYOUTS[name]
    ranks = layout.replicate * layout.shard * layout.tensor
    together(ranks, partial(process, folder=tmp_path, layout=layout, ranks=ranks))
    expected_log, expected = run(tmp_path / "one")
    for log, weights in (torch.load(tmp_path / "found.pt"), run(tmp_path / "cut")):
        for entry, other in zip(log, expected_log, strict=True):
            assert entry["tokens"] == other["tokens"]
            assert entry["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert entry["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        for key, weight in weights.items():
            torch.testing.assert_close(weight, expected[key], rtol=1e-4, atol=2e-5)
    assert len(list((tmp_path / "cut" / "step-000000002").glob("rank-*.safetensors"))) == ranks


def pretrained(rank: int, ranks: int, folder: Path) -> None:
    """One rank of the technique: what `shoestring run` would do alone."""
    torch.set_num_threads(1)
    if ranks > 1:
        store = distributed.FileStore(str(folder / "store"), ranks)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    hardware = find("cpu")
    task, watch = Task(folder / "out", folder / "scratch", hardware, seed=3), Watch(Meter(hardware), lambda text: None)
    shape = {"width": 32, "layers": 2, "heads": 2, "context": 16}
    technique = Pretrain(model=shape, steps=4, batch_tokens=64, micro_batch=2, learning_rate=1e-2, log_every=1)
    with watch.meter:
        technique.apply({"tokens": folder.parent / "tokens"}, task, watch)
    if ranks > 1:
        distributed.destroy_process_group()


def test_a_technique_that_trains_does_so_on_several_ranks(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)}, r"\s?\S+", ["<|endoftext|>"])
    with artifact.writing(tmp_path / "tokens", "tokens", {"dtype": "uint16", "vocabulary": tokenizer.vocabulary}) as folder:
        tokenizer.save(folder)
        for side in ("train", "heldout"):
            (np.arange(2000) * 7 % 251).astype("<u2").tofile(folder / f"{side}.bin")
            np.save(folder / f"{side}.offsets.npy", np.array([0, 2000], dtype="<i8"))
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        together(ranks, partial(pretrained, ranks=ranks, folder=tmp_path / str(ranks)))
    one, two = (artifact.verify(tmp_path / ranks / "out") for ranks in ("1", "2"))
    assert two.about["facts"] == one.about["facts"]
    assert two.about["plan"] == one.about["plan"]
    weights, expected = (load_file(tmp_path / ranks / "out" / "model.safetensors") for ranks in ("2", "1"))
    for key, weight in weights.items():
        torch.testing.assert_close(weight, expected[key], rtol=1e-4, atol=2e-5)


def test_a_layout_needs_its_processes() -> None:
    with pytest.raises(SettingError, match="needs 4 processes, and 1 were started"):
        replace(LAYOUTS["shard"], tensor=2).mesh("cpu")
