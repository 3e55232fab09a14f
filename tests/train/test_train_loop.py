"""The loop against a naive one, and its parts against each other."""

import math

import pytest
import torch
from torch.nn import functional as F

from shoestring.architecture import ModelConfig
from shoestring.data.batch import IGNORED
from shoestring.errors import SettingError, ShoestringError
from shoestring.measure import Meter, find
from shoestring.model import Transformer
from shoestring.train import Around, Callback, KeepZeros, Loss, Plan, Training, next_token, train
from shoestring.train.optimizers import decayed

CONFIG = ModelConfig(vocabulary=61, width=32, layers=2, heads=4, kv_heads=2, context=16)


def batches(step, rows=4, vocabulary=61):
    """Arithmetic sequences: something to learn."""
    generator = torch.Generator().manual_seed(1000 + step)
    first = torch.randint(0, vocabulary, (rows, 1), generator=generator)
    stride = torch.randint(1, 4, (rows, 1), generator=generator)
    row = (first + stride * torch.arange(17)) % vocabulary
    targets = row[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < 0.2] = IGNORED
    return {"tokens": row[:, :-1], "targets": targets}


def fresh(seed=0):
    return Transformer(CONFIG).initialise(seed)


def naive(steps, rate, warmup, decay, weight_decay=0.1, clip=1.0, dtype=torch.float64):
    """Thirty plain lines: AdamW written out, logits whole, in float64."""
    model = fresh().to(dtype)
    names = decayed(model)
    first = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    second = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    losses = []
    for step in range(steps):
        batch = batches(step)
        logits = model(batch["tokens"]).flatten(0, 1)
        loss = F.cross_entropy(logits, batch["targets"].flatten(), ignore_index=IGNORED)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norm = math.sqrt(sum(p.grad.pow(2).sum().item() for p in model.parameters()))
        cut = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        if step + 1 < warmup:
            now = rate * (step + 1) / warmup
        elif step > steps - decay:
            now = rate * (1 - math.sqrt((step - (steps - decay)) / decay))
        else:
            now = rate
        with torch.no_grad():
            for name, p in model.named_parameters():
                grad = p.grad * cut
                first[name] = 0.9 * first[name] + 0.1 * grad
                second[name] = 0.95 * second[name] + 0.05 * grad**2
                if name in names:
                    p -= now * weight_decay * p
                mean, spread = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.95 ** (step + 1))
                p -= now * mean / (spread.sqrt() + 1e-8)
    return losses


def run(model=None, steps=12, settings=None, learning_rate=5e-3, warmup=3, decay=4, micro_batches=1, **around):
    model, plan = model or fresh(), Plan(steps, learning_rate, warmup, decay, micro_batches)
    return model, train(model, batches, plan, settings=settings or Training(log_every=1), around=Around(**around))


@pytest.mark.parametrize("chunk", [0, 7, 8192])
def test_same_losses_as_a_naive_loop_in_float64(chunk):
    expected = naive(12, 5e-3, 3, 4)
    _, log = run(fresh().double(), settings=Training(log_every=1, loss_chunk=chunk))
    assert [entry["loss"] for entry in log] == pytest.approx(expected, rel=1e-6)
    _, log = run(settings=Training(log_every=1, loss_chunk=chunk))
    assert [entry["loss"] for entry in log] == pytest.approx(expected, rel=2e-4)


def test_without_clipping_too():
    expected = naive(6, 5e-3, 2, 0, weight_decay=0.0, clip=0)
    settings = Training(log_every=1, clip=0, weight_decay=0)
    _, log = run(fresh().double(), steps=6, settings=settings, warmup=2, decay=0)
    assert [entry["loss"] for entry in log] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_micro_batches_add_up_to_the_batch(parts):
    whole, one = run()
    split, many = run(micro_batches=parts)
    assert [e["loss"] for e in many] == pytest.approx([e["loss"] for e in one], rel=1e-5)
    assert [e["grad_norm"] for e in many] == pytest.approx([e["grad_norm"] for e in one], rel=1e-4)
    gradients = []
    for count in (1, parts):
        seen = _Gradients()
        run(fresh().double(), steps=1, micro_batches=count, callbacks=[seen], warmup=0, decay=0)
        gradients.append(seen.found)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-6, atol=1e-9)


class _Gradients(Callback):
    def before_step(self, model, optimizer, step):
        self.found = {name: p.grad.clone() for name, p in model.named_parameters()}


def test_clipping_bounds_the_gradient_that_the_optimizer_sees():
    class Norm(Callback):
        norms: list = []

        def after_step(self, model, optimizer, step):
            self.norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())

    seen = Norm()
    _, log = run(settings=Training(log_every=1, clip=0.05), callbacks=[seen])
    assert max(seen.norms) <= 0.0501
    assert max(entry["grad_norm"] for entry in log) > 0.1


def test_bf16_stays_close_to_fp32_and_weights_stay_float32():
    _, full = run(steps=30)
    model, half = run(steps=30, settings=Training(log_every=1, precision="bf16"))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert half[-1]["loss"] == pytest.approx(full[-1]["loss"], rel=0.03)
    assert half[-1]["loss"] < half[0]["loss"]


def test_only_what_requires_grad_learns():
    model = fresh()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("feed_forward" in name)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("feed_forward" not in name), name
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(SettingError, match="no parameter of the model is trainable"):
        run(model)


def test_pruned_weights_stay_zero():
    model = fresh()
    generator = torch.Generator().manual_seed(3)
    holes = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and "blocks" in name:
                holes[name] = torch.rand(module.weight.shape, generator=generator) < 0.5
                module.weight[holes[name]] = 0
    keep = KeepZeros(model)
    assert set(keep.masks) == set(holes)
    start = {name: module.weight.detach().clone() for name, module in model.named_modules() if name in holes}
    run(model, callbacks=[keep])
    for name, module in model.named_modules():
        if name in holes:
            assert (module.weight[holes[name]] == 0).all()
            assert not torch.equal(module.weight, start[name])


def test_log_and_meter():
    hardware = find("cpu").with_(reached={"matmul.fp32": 50e9})
    said, shares, notes = [], [], []

    def progress(text, done=None):
        said.append(text)
        shares.append(done)

    with Meter(hardware) as meter:
        _, log = run(settings=Training(log_every=5), meter=meter, progress=progress, note=notes.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert [entry["step"] for entry in log] == [5, 10, 12]
    assert log[-1]["tokens"] == 12 * 4 * 16
    assert set(log[0]) == {"step", "tokens", "loss", "learning_rate", "grad_norm", "seconds", "tokens_per_second", "mfu"}
    assert log[0]["mfu"] > 0
    assert meter.flops > 0
    assert "step 12/12" in said[-1]
    for word in ("loss", "tok/s", "MFU", "GFLOP/s fp32", "MiB", "$"):
        assert word in said[-1], word
    _, every = run()
    assert log[0]["loss"] == pytest.approx(sum(e["loss"] for e in every[:5]) / 5, rel=1e-6)


def test_figures_are_divided_as_the_loss_is_and_logged():
    def objective(model, batch):
        loss = next_token()(model, batch)
        return Loss(loss.total, loss.count, {"twice": 2 * loss.total.detach()})

    plan = Plan(4, 5e-3, micro_batches=3)
    log = train(fresh(), batches, plan, objective, Training(log_every=2))
    assert [entry["twice"] for entry in log] == pytest.approx([2 * entry["loss"] for entry in log])


def test_a_loss_that_is_not_finite_ends_in_one_line():
    model = fresh()
    with torch.no_grad():
        model.embedding.weight[0] = float("nan")
    with pytest.raises(ShoestringError, match=r"loss is not finite at step \d+ of 12; lower learning_rate"):
        run(model)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.inf}, "learning_rate must be above 0"),
        ({"warmup": 9, "decay": 9}, "together at most steps"),
        ({"warmup": -1}, "at least 0"),
        ({"micro_batches": 0}, "micro_batches must be at least 1"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    with pytest.raises(SettingError, match=said):
        run(**settings)


def test_the_model_is_handed_back_as_it_came():
    model = fresh().eval()
    run(model, steps=7)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
