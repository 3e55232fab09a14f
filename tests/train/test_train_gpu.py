"""The loop on a CUDA device: precision, compile, restart."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from shoestring.architecture import ModelConfig
from shoestring.data.batch import IGNORED
from shoestring.data.loader import Loader
from shoestring.measure import Meter, find
from shoestring.model import Transformer
from shoestring.train import Around, KeepZeros, Plan, Training, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CONFIG = ModelConfig(vocabulary=61, width=64, layers=3, heads=4, kv_heads=2, context=16)


@pytest.fixture(scope="module")
def loop():
    spec = importlib.util.spec_from_file_location("naive_loop", Path(__file__).with_name("test_train_loop.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(loop, settings, **more):
    model = Transformer(CONFIG).initialise(0).cuda()
    _, log = loop.run(model, 30, settings, decay=6, **more)
    return model, [entry["loss"] for entry in log]


def test_equal_to_the_cpu_in_float32(loop):
    _, found = _run(loop, Training(log_every=1))
    model = Transformer(CONFIG).initialise(0)
    _, log = loop.run(model, 30, decay=6)
    assert found == pytest.approx([entry["loss"] for entry in log], rel=2e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("chunk", [0, 16, 8192])
def test_compiled_is_close_to_plain(loop, precision, chunk):
    _, plain = _run(loop, Training(log_every=1, precision=precision, loss_chunk=chunk), micro_batches=2)
    settings = Training(log_every=1, precision=precision, loss_chunk=chunk, compile="regional")
    _, compiled = _run(loop, settings, micro_batches=2)
    assert compiled == pytest.approx(plain, rel=0.02 if precision == "bf16" else 2e-3)
    _, full = _run(loop, Training(log_every=1))
    assert compiled == pytest.approx(full, rel=0.04)
    assert compiled[-1] < compiled[0] - 0.2


def test_goes_on_bit_for_bit_when_deterministic(loop, tmp_path, monkeypatch):
    from shoestring.train import journal

    monkeypatch.setattr(journal, "SAVING", 1e9)
    settings = Training(log_every=1, precision="bf16", deterministic=True, checkpoint_every=1e-9)
    expected, _ = _run(loop, settings)
    again, _ = _run(loop, settings)
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), again.parameters(), strict=True))

    class Die(loop.Callback):
        def after_step(self, model, optimizer, step):
            if step == 17:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(loop, settings, scratch=tmp_path, callbacks=[Die()])
    notes = []
    model, _ = _run(loop, settings, scratch=tmp_path, note=notes.append)
    assert "training goes on at step 17 of 30" in notes
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))


def test_reads_ahead_measures_energy_and_keeps_zeros():
    import numpy as np

    data = (np.arange(5000) % 61).astype(np.uint16)
    loader = Loader(data, np.array([0, 5000]), 8, 16, seed=0)
    model = Transformer(CONFIG).initialise(0).cuda()
    with torch.no_grad():
        model.blocks[0].feed_forward.up.weight[::2] = 0
    said = []
    with Meter(find("h200")) as meter:
        settings = Training(log_every=5, precision="bf16", compile="regional")
        log = train(
            model, loader, Plan(40, 1e-2), settings=settings,
            around=Around(meter=meter, progress=lambda text, done=None: said.append(text), callbacks=(KeepZeros(model),)),
        )  # fmt: skip
    assert log[-1]["loss"] < 1.0
    assert model.blocks[0].feed_forward.up.weight[::2].abs().max() == 0
    assert "MFU" in said[-1]
    assert re.search(r"J, \$", said[-1])
    assert meter.usage.energy.kind == "measured"
    assert meter.usage.energy.value > 0


@pytest.mark.parametrize("vocabulary", [61, 8192, 50304, 70001])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_kernel_equals_plain_float64(vocabulary, dtype):
    from shoestring.train.loss import softmax_and_gradient
    from shoestring.train.softmax_kernel import softmax_and_gradient as fused

    logits = (torch.randn(37, vocabulary, device="cuda") * 5).to(dtype)
    targets = torch.randint(0, vocabulary, (37,), device="cuda")
    targets[::5] = IGNORED
    targets[1] = logits[1].argmax()
    expected, expected_gradient = softmax_and_gradient(logits.double(), targets)
    loss, gradient = fused(logits, targets)
    assert gradient.data_ptr() == logits.data_ptr()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    error = (gradient.double() - expected_gradient).norm() / expected_gradient.norm()
    assert error < (4e-3 if dtype == torch.bfloat16 else 1e-5)
