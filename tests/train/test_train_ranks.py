"""Several ranks, as processes on a CPU: in any layout they learn what one learns, and one goes on from where they were."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.fsdp
import torch.distributed.tensor.parallel  # before the fork: once
from torch import distributed

from shoestring.architecture import ModelConfig
from shoestring.errors import SettingError
from shoestring.model import Transformer
from shoestring.train import Around, Callback, KeepZeros, Plan, Training, journal, train
from shoestring.train.parallel.layout import Layout, join

CONFIG = ModelConfig(vocabulary=61, width=32, layers=2, heads=4, kv_heads=2, context=16)
LAYOUTS = {
    "shard": Layout(shard=2),
    "replicate": Layout(replicate=2),
    "tensor": Layout(tensor=2),
    "shard and tensor": Layout(shard=2, tensor=2),
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
    return log, {name: p.detach() for name, p in join(model).named_parameters()}


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
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=process, args=(rank, tmp_path, layout, ranks)) for rank in range(ranks)]
    for each in started:
        each.start()
    for each in started:
        each.join(60)
        each.kill()
    assert [each.exitcode for each in started] == [0] * ranks
    expected_log, expected = run(tmp_path / "one")
    for log, weights in (torch.load(tmp_path / "found.pt"), run(tmp_path / "cut")):
        for entry, other in zip(log, expected_log, strict=True):
            assert entry["tokens"] == other["tokens"]
            assert entry["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert entry["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        for key, weight in weights.items():
            torch.testing.assert_close(weight, expected[key], rtol=1e-4, atol=2e-5)
    assert len(list((tmp_path / "cut" / "step-000000002").glob("rank-*.safetensors"))) == ranks


def test_a_layout_needs_its_processes() -> None:
    with pytest.raises(SettingError, match="needs 4 processes, and 1 were started"):
        replace(LAYOUTS["shard"], tensor=2).mesh("cpu")
