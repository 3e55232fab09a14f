"""What training costs, against PyTorch's own counts, and against steps that are really taken."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from shoestring.architecture import ModelConfig
from shoestring.architecture import counts as model_cost
from shoestring.data.batch import Batch
from shoestring.measure import find
from shoestring.model import Transformer
from shoestring.train import Around, Plan, cost, next_token, probe, train

CPU, GPU = find("cpu"), find("h200")
SMALL = ModelConfig(vocabulary=211, width=64, layers=2, heads=2, context=32)
SHAPES = [SMALL, SMALL.with_(kv_heads=1, layers=3), ModelConfig(vocabulary=97, width=96, layers=2, heads=3)]


def batch_of(config: ModelConfig, sequences: int, context: int) -> Batch:
    tokens_BT = torch.randint(0, config.vocabulary, (sequences, context + 1), generator=torch.Generator().manual_seed(0))
    return {"tokens": tokens_BT[:, :-1], "targets": tokens_BT[:, 1:]}


@pytest.mark.parametrize("config", SHAPES)
def test_flops_agree_with_pytorchs_counter(config: ModelConfig) -> None:
    # PyTorch counts nothing for fused attention on a CPU, and the whole square elsewhere: matrices are compared alone.
    model, batch = Transformer(config).initialise(0), batch_of(config, 2, 16)
    with FlopCounterMode(display=False) as counter:
        model(batch["tokens"]).sum().backward()
    attention = len(config.layers) * 4 * config.flat.heads * config.flat.head_size * (16 + 1) / 2 * 32
    counted = counter.get_total_flops()
    assert counted == pytest.approx(3 * (model_cost.forward_flops(config, 32, 16) - attention), rel=1e-6)
    work = cost.pass_counts(config, 2, 16, "fp32")
    products = work["train.fp32.matrices"] + work["train.fp32.head"]
    assert products == pytest.approx(counted, rel=1e-6)
    assert products + work["train.fp32.attention"] == pytest.approx(model_cost.training_flops(config, 32, 16))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("config", SHAPES)
def test_activation_memory_agrees_with_the_tensors_that_pytorch_saves(config: ModelConfig, precision: str) -> None:
    def saved(layers: int) -> float:
        model = Transformer(config.with_(layers=layers)).initialise(0)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, tuple[int, torch.Tensor]] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                next_token()(model, batch_of(config, 16, 64))
        return sum(size for size, _ in kept.values())

    cast = 2 * model_cost.linear_parameters(config) / len(config.layers) if precision == "bf16" else 0
    layers = len(config.layers)
    per_layer = (saved(2 * len(config.layers)) - saved(len(config.layers))) / len(config.layers) - cast
    assert model_cost.saved_bytes(config, precision == "bf16") / layers == pytest.approx(per_layer / 1024, rel=0.1)


def test_an_uncalibrated_device_gets_a_share_of_its_peak() -> None:
    seconds = cost.step_seconds(SMALL, 8, 32, "bf16", GPU)
    flops = model_cost.training_flops(SMALL, 8 * 32, 32)
    assert seconds == pytest.approx(flops / (cost.MFU * GPU.peak["bf16"]) + cost.LOOP_SECONDS)
    assert cost.assumed_rate("bf16", find("v100")) == cost.MFU_FP32 * find("v100").peak["fp32"]
    assert cost.assumed_rate("fp32", CPU.with_(reached={"matmul.fp32": 1e11})) == cost.CPU_SHARE * 1e11


def test_a_calibrated_step_is_the_sum_of_its_terms() -> None:
    units = {f"train.fp32.{term}": (place + 1) * 1e-12 for place, term in enumerate(cost.TERMS)}
    here = CPU.with_(reached=units)
    work = cost.pass_counts(SMALL, 4, 32, "fp32")
    once = work["train.fp32.parameters"] * units["train.fp32.parameters"]
    each = sum(work[term] * units[term] for term in units) - once
    assert cost.step_seconds(SMALL, 8, 32, "fp32", here, micro_batch=4) == pytest.approx(2 * each + once + cost.LOOP_SECONDS)
    usage = cost.training_usage(SMALL, 10, 8, 32, "fp32", here, micro_batch=4)
    assert usage.seconds.value == pytest.approx(10 * (2 * each + once + cost.LOOP_SECONDS))
    assert usage.flops.value == pytest.approx(model_cost.training_flops(SMALL, 10 * 8 * 32, 32))
    assert "timed steps" in usage.seconds.method
    assert usage.communication.value == 0


def test_several_devices_share_the_work_and_exchange_gradients() -> None:
    config = ModelConfig(vocabulary=32768, width=768, layers=12, heads=12)
    one, four = GPU, GPU.with_(count=4)
    alone, shared = (cost.step_seconds(config, 64, 1024, "bf16", device) for device in (one, four))
    assert 3.0 < alone / shared <= 4.0
    slow = four.with_(link=1e8)
    assert cost.step_seconds(config, 64, 1024, "bf16", slow) > alone
    usage = cost.training_usage(config, 10, 64, 1024, "bf16", four)
    assert usage.communication.value == 10 * cost.exchanged_bytes(config, 4)
    assert cost.exchanged_bytes(config, 1) == 0


def test_the_faster_precision_is_chosen_and_a_tie_goes_to_fp32() -> None:
    fp32 = {f"train.fp32.{term}": 1e-12 for term in cost.TERMS}
    bf16 = {f"train.bf16.{term}": 0.5e-12 for term in cost.TERMS}
    assert cost.faster_precision(SMALL, 4, 32, CPU) == "fp32"
    assert cost.faster_precision(SMALL, 4, 32, CPU.with_(reached=fp32)) == "fp32"
    assert cost.faster_precision(SMALL, 4, 32, CPU.with_(reached=fp32 | bf16)) == "bf16"
    assert cost.faster_precision(SMALL, 4, 32, GPU) == "bf16"
    assert cost.faster_precision(SMALL, 4, 32, find("t4")) == "fp32"


def test_memory_grows_with_the_micro_batch_and_never_falls_below_the_optimizers() -> None:
    small, large = (cost.training_memory(SMALL, micro, 32, "fp32") for micro in (1, 64))
    assert large > small >= 16 * model_cost.parameters(SMALL)
    wide = SMALL.with_(vocabulary=50_000)
    assert cost.training_memory(wide, 64, 32, "fp32", "cuda", 64) < cost.training_memory(wide, 64, 32, "fp32", "cuda", 0)


def test_the_fit_finds_what_made_the_times() -> None:
    truth = dict(zip((f"train.fp32.{term}" for term in cost.TERMS), [8e-12, 5e-12, 2e-11, 2e-9, 4e-9, 0.0, 1e-4]))
    shapes = (*probe.CPU_SHAPES, (320, 2, 1024, 64, 32), (448, 2, 512, 256, 2))
    rows = [cost.pass_counts(probe._config(shape), shape[4], shape[3], "fp32") for shape in shapes]
    seconds = [cost.LOOP_SECONDS + sum(truth[term] * row[term] for term in truth) for row in rows]
    units = probe.figures(shapes, seconds, "fp32")
    again = [cost.LOOP_SECONDS + sum(units[term] * row[term] for term in truth) for row in rows]
    assert again == pytest.approx(seconds, rel=0.005)
    assert units["train.fp32.matrices"] == pytest.approx(truth["train.fp32.matrices"], rel=0.1)
    assert units["train.fp32.error"] < 0.005


def test_the_probe_times_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = ((32, 2, 128, 32, 2), (64, 2, 256, 32, 2), (32, 3, 64, 64, 2))
    monkeypatch.setattr(probe, "CPU_SHAPES", (*shapes, shapes[1]))
    monkeypatch.setattr(probe, "SECONDS", {"cpu": 0.0})
    found = probe.probe(CPU)
    assert {f"train.fp32.{term}" for term in cost.TERMS} <= found.keys()
    assert all(value >= 0 for value in found.values())
    here = CPU.with_(reached=found)
    assert cost.calibrated("fp32", here)
    assert 0 < cost.step_seconds(SMALL, 2, 32, "fp32", here) < 60


def test_a_trained_step_counts_the_flops_that_cost_predicts() -> None:
    from shoestring.measure import Meter

    model = Transformer(SMALL).initialise(0)
    with Meter(CPU) as meter:
        train(model, lambda step: batch_of(SMALL, 4, 32), Plan(2, 1e-3), around=Around(meter=meter))
    assert meter.usage.flops.value == pytest.approx(model_cost.training_flops(SMALL, 2 * 4 * 32, 32))
