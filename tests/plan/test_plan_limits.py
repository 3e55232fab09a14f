"""Allocation keeps inside every limit by its own prediction, gets better with more, and says clearly when nothing fits."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.architecture.counts import parameters
from shoestring.errors import BudgetError, SettingError
from shoestring.measure import Hardware, Usage, find, predicted_usage
from shoestring.plan.allocate import Requested, allocate
from shoestring.plan.explain import explain, lines
from shoestring.plan.rules import FEWEST_STEPS, portions
from shoestring.plan.shapes import shape, widths
from shoestring.technique import Budget, Outlook, Sketch
from shoestring.train import TrainingPlan
from shoestring.train.cost import TERMS, faster_precision, training_memory, training_usage
from tests.plan.later import outlook

CPU = find("cpu")
# Seconds per unit such as a small machine reaches: a step costs something for each layer and each parameter, whatever the batch.
PACE = dict(zip(TERMS, (1.2e-11, 1.1e-11, 3e-11, 1e-9, 1e-9, 4e-9, 2e-4)))
TIMED = CPU.with_(calibrated="a day", reached={f"train.fp32.{term}": pace for term, pace in PACE.items()})


def known(
    budget: Budget, tokens: float | None = 7e6, vocabulary: int = 4096, rest: Callable[[Sketch], Usage] | None = None
) -> Sketch:
    return Sketch(vocabulary=vocabulary, tokens=tokens, outlook=outlook(budget, rest))


def alone(plan: TrainingPlan, hardware: Hardware) -> Usage:
    return training_usage(
        plan.model, plan.steps, plan.batch, plan.context, plan.precision, hardware, micro_batch=plan.micro_batch
    )


def later(hardware: Hardware, fixed: float = 0.0, share: float = 0.3, peak: float = 0.0) -> Callable[[Sketch], Usage]:
    """Steps after the plan: training, then something that takes a share of its time and a fixed time."""

    def rest(candidate: Sketch) -> Usage:
        assert isinstance(candidate.plan, TrainingPlan)
        training = alone(candidate.plan, hardware)
        seconds = fixed + share * (training.seconds.value or 0.0)
        return training.then(predicted_usage(seconds=seconds, hardware=hardware, flops=0.0, peak_memory=peak))

    return rest


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.floats(20, 1e5),
    memory=st.floats(6e8, 8e9),
    money=st.floats(0.001, 10),
    tokens=st.floats(1e5, 1e9),
    hardware=st.sampled_from([CPU, TIMED]),
    share=st.floats(0, 2),
)
def test_the_plan_is_inside_every_limit(
    seconds: float, memory: float, money: float, tokens: float, hardware: Hardware, share: float
) -> None:
    budget, requested, rest = Budget(time=seconds, memory=memory, money=money), Requested(), later(hardware, 5.0, share)
    try:
        plan = allocate(known(budget, tokens, rest=rest), hardware, requested).plan
    except BudgetError:
        return
    used = rest(Sketch(plan=plan))
    assert requested.reserve >= 0.12
    assert used.seconds.value <= seconds * (1 - requested.reserve) * (1 + 1e-9)
    assert used.money.value <= money * (1 - requested.reserve) * (1 + 1e-9)
    assert used.peak_memory.value <= memory
    assert plan.steps >= FEWEST_STEPS
    assert plan.tokens == plan.steps * plan.batch * plan.context
    assert plan.tokens <= tokens * requested.epochs
    assert plan.batch % plan.micro_batch == 0
    assert plan.warmup + plan.decay <= plan.steps


@pytest.mark.parametrize("hardware", [CPU, TIMED, find("h200")], ids=["cpu", "timed cpu", "h200"])
def test_more_time_lowers_the_expected_loss_and_is_used(hardware: Hardware) -> None:
    times = [30.0 * 1.3**n for n in range(24)]
    found = [allocate(known(Budget(time=seconds), None), hardware) for seconds in times]
    losses = [allocation.loss for allocation in found]
    assert losses == sorted(losses, reverse=True)
    for seconds, allocation in zip(times, found):
        assert allocation.plan.seconds > 0.93 * (1 - Requested().reserve) * seconds
    sizes = [parameters(allocation.plan.model) for allocation in found]
    assert sizes[-1] > 2.5 * sizes[0]


def test_the_same_question_has_the_same_answer() -> None:
    asked = known(Budget(time=540, memory=8e9), rest=later(TIMED, 100))
    assert allocate(asked, TIMED) == allocate(asked, TIMED)


def test_no_shape_of_the_ladder_is_better() -> None:
    asked = known(Budget(time=600))
    others = [allocate(asked, TIMED, Requested(smallest=width, largest=width)).loss for width in widths(64, 512)]
    assert allocate(asked, TIMED).loss == min(others)


@pytest.mark.parametrize("memory", [0.5e9, 0.7e9, 1e9, 2e9, 4e9])
def test_memory_binds_every_shape(memory: float) -> None:
    held: list[int] = []
    for width in widths(64, 2048):
        try:
            plan = allocate(known(Budget(time=1e5, memory=memory), None), CPU, Requested(smallest=width, largest=width)).plan
        except BudgetError:
            continue
        held.append(width)
        assert alone(plan, CPU).peak_memory.value <= memory
    assert held == list(widths(64, max(held)))  # all up to some width, none beyond


def test_a_device_has_an_end_even_without_a_limit_of_memory() -> None:
    plan = allocate(known(Budget(time=1e9), None, 32768), find("t4")).plan
    assert training_memory(plan.model, plan.micro_batch, plan.context, plan.precision) <= find("t4").memory


def test_much_time_does_not_read_little_text_for_ever() -> None:
    found = allocate(known(Budget(time=1e6), 1e6), TIMED)
    assert found.plan.tokens <= 16e6
    assert found.binding == "text"


def test_a_peak_of_later_steps_counts() -> None:
    with pytest.raises(BudgetError, match=r"budget\.memory"):
        allocate(known(Budget(time=600, memory=2e9), rest=later(CPU, peak=3e9)), CPU)


def test_shapes_that_a_later_step_refuses_are_left_out() -> None:
    whole = later(TIMED)

    def rest(candidate: Sketch) -> Usage:
        assert isinstance(candidate.plan, TrainingPlan)
        if candidate.plan.model.width % 128:
            raise SettingError("steps.gptq.group_size: 128 does not divide the width")
        return whole(candidate)

    assert allocate(known(Budget(time=600), rest=rest), TIMED).plan.model.width % 128 == 0
    with pytest.raises(BudgetError, match=r"budget\.time"):  # the first shapes don't suit the setting, the others the time
        allocate(known(Budget(time=0.1), rest=rest), TIMED)

    def never(candidate: Sketch) -> Usage:
        raise SettingError("steps.gptq.bits: no")

    with pytest.raises(SettingError, match=r"steps\.gptq\.bits"):
        allocate(known(Budget(time=600), rest=never), TIMED)


def test_a_training_that_keeps_to_its_own_steps_is_planned_sensibly() -> None:
    def rest(candidate: Sketch) -> Usage:
        return predicted_usage(seconds=60.0, hardware=CPU, flops=1e9, peak_memory=1e8)

    found = allocate(known(Budget(time=600), None, rest=rest), CPU, Requested(largest=256))
    assert found.plan.tokens < 100 * parameters(found.plan.model)
    with pytest.raises(BudgetError, match=r"budget\.time"):
        allocate(known(Budget(time=10), None, rest=rest), CPU)


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_a_batch_may_be_set(batch: int) -> None:
    plan = allocate(known(Budget(time=1e5), None), CPU, Requested(batch=batch)).plan
    assert plan.batch == batch
    assert batch % plan.micro_batch == 0


@pytest.mark.parametrize("limits", [Budget(time=600), Budget(memory=8e9)], ids=["time", "memory"])
def test_a_batch_too_large_for_any_training_is_refused(limits: Budget) -> None:
    with pytest.raises(BudgetError):
        allocate(known(limits, None), CPU, Requested(batch=10**9, largest=512))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Budget(time=0.1), r"budget\.time .*short"),
        (Budget(energy=1.0), r"budget\.energy .*short"),
        (Budget(money=1e-6), r"budget\.money .*short"),
        (Budget(memory=1e8), r"budget\.memory .*short"),
        (Budget(time=-3.0), r"budget\.time .*short"),
    ],
    ids=["time", "energy", "money", "memory", "time used up"],
)
def test_what_is_short_is_said(limits: Budget, said: str) -> None:
    with pytest.raises(BudgetError, match=said):
        allocate(known(limits), TIMED)


def test_no_budget_and_no_vocabulary_are_refused() -> None:
    with pytest.raises(SettingError, match="no budget"):
        allocate(known(Budget()), CPU)
    with pytest.raises(SettingError, match="vocabulary"):
        allocate(Sketch(outlook=Outlook(Budget(time=60))), CPU)


def test_devices_share_a_batch_equally() -> None:
    for count in (1, 3, 8):
        plan = allocate(known(Budget(time=36000), None, 32768), find("h200").with_(count=count)).plan
        assert plan.batch % count == 0
        assert (plan.batch // count) % plan.micro_batch == 0
    with pytest.raises(SettingError, match="multiple of the 8 devices"):
        portions(1e9, 1024, find("h200").with_(count=8), batch=12)


@given(width=st.sampled_from(list(widths())), groups=st.integers(1, 64))
def test_every_shape_is_a_model(width: int, groups: int) -> None:
    config = shape(width, 32768, 1024, groups)
    assert config.flat.heads * config.flat.head_size == width
    assert config.flat.heads % config.flat.kv_heads == 0
    assert 32 <= config.flat.head_size <= 128
    assert len(config.layers) >= 2


@pytest.mark.parametrize("name", ["v100", "t4"])
def test_a_gpu_without_bfloat16_is_not_given_it(name: str) -> None:
    assert faster_precision(shape(512, 32768, 1024), 8, 1024, find(name)) == "fp32"


def test_figures_are_explained_one_a_line() -> None:
    asked = allocate(known(Budget(time=600)), TIMED)
    formulas = explain(asked, TIMED, Requested())
    assert len(lines(formulas)) == len(formulas)
    told = {formula["name"]: formula for formula in formulas}
    assert {"parameters", "tokens", "epochs", "batch", "learning rate", "time", "money"} <= set(told)
    assert all(formula["formula"] and formula["source"] for formula in formulas)
    assert told["tokens"]["value"] == asked.plan.tokens


def test_planning_takes_no_time() -> None:
    begin = time.process_time()
    allocate(known(Budget(time=540, memory=8e9), rest=later(TIMED, 100)), TIMED)
    assert time.process_time() - begin < 1.0
