"""From a budget to a model, tokens and steps."""

import math
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.architecture.counts import linear_parameters, parameters
from shoestring.errors import BudgetError, SettingError
from shoestring.measure import Hardware, Kind, Usage, find, no_usage, predicted, predicted_usage
from shoestring.plan import allocate, rules
from shoestring.plan.allocate import Requested
from shoestring.plan.explain import explain, lines
from shoestring.plan.shapes import shape, widths
from shoestring.technique import Budget, Outlook, Sketch
from shoestring.train import TrainingPlan
from shoestring.train.cost import training_memory, training_usage
from shoestring.train.training_plan import MICRO_TOKENS
from tests.plan.later import outlook

CPU, GPU = find("cpu"), find("h200")


def sketch_of(vocabulary: int = 4096, tokens: float | None = 3e6, rest=None, **budget: float) -> Sketch:
    return Sketch(vocabulary=vocabulary, tokens=tokens, outlook=outlook(Budget(**budget), rest))


def training_then(seconds: float, hardware: Hardware, per_parameter: float = 0.0):
    """What the later steps use: the planned training, and some more."""

    def rest(sketch: Sketch) -> Usage:
        plan = sketch.plan
        assert isinstance(plan, TrainingPlan)
        trained = training_usage(plan.model, plan.steps, plan.batch, plan.context, plan.precision, hardware, plan.micro_batch)
        more = seconds + per_parameter * parameters(plan.model)
        return no_usage(Kind.PREDICTED).then(trained).then(predicted_usage(seconds=more, hardware=hardware, flops=0.0))

    return rest


def test_the_whole_rest_fits_the_budget_less_the_reserve() -> None:
    for seconds in (30.0, 300.0, 3000.0):
        rest = training_then(seconds / 5, CPU, 1e-6)
        chosen = allocate(sketch_of(rest=rest, time=seconds), CPU)
        used = rest(Sketch(plan=chosen.plan)).seconds.value
        assert used is not None
        assert 0.75 * seconds <= used <= 0.85 * seconds
        assert chosen.binding == "time"


@settings(deadline=None, max_examples=25)
@given(st.floats(1.0, 1e5), st.floats(1e4, 1e9), st.sampled_from(["cpu", "h200", "t4"]))
def test_every_plan_is_sound(seconds: float, tokens: float, device: str) -> None:
    hardware = find(device)
    try:
        plan = allocate(sketch_of(tokens=tokens, time=seconds), hardware).plan
    except BudgetError:
        return
    assert plan.tokens == plan.steps * plan.batch * plan.context
    assert plan.tokens <= 16 * tokens
    assert plan.batch % plan.micro_batch == 0
    assert plan.steps >= rules.FEWEST_STEPS
    assert plan.warmup + plan.decay <= plan.steps
    assert 0 < plan.learning_rate <= rules.HIGHEST_RATE
    assert plan.seconds <= 0.85 * seconds
    assert training_memory(plan.model, plan.micro_batch, plan.context, plan.precision, hardware.device) < hardware.memory


def test_more_time_never_buys_a_worse_model() -> None:
    losses = [allocate(sketch_of(tokens=None, time=seconds), GPU).loss for seconds in (10, 60, 600, 6000, 60000)]
    assert losses == sorted(losses, reverse=True)


def test_money_and_energy_bind_too() -> None:
    by_time = allocate(sketch_of(tokens=None, time=3600), GPU)
    assert allocate(sketch_of(tokens=None, time=3600, money=0.01), GPU).binding == "money"
    by_energy = allocate(sketch_of(tokens=None, time=3600, energy=1e5), GPU)
    assert by_energy.binding == "energy"
    assert by_energy.plan.seconds < by_time.plan.seconds
    energy = by_energy.usage.energy.value
    assert energy is not None
    assert energy <= 0.85e5


def test_memory_bounds_the_model() -> None:
    free = allocate(sketch_of(tokens=None, time=86400), GPU)
    tight = allocate(sketch_of(tokens=None, time=86400, memory=2e9), GPU)
    assert training_memory(tight.plan.model, tight.plan.micro_batch, 1024, "bf16", "cuda") <= 2e9
    assert parameters(tight.plan.model) < parameters(free.plan.model)
    alone = allocate(sketch_of(tokens=None, memory=8e9), GPU).plan
    assert alone.tokens == pytest.approx(Requested().law.tokens_for(parameters(alone.model)), rel=0.01)


def test_no_model_is_larger_than_its_device() -> None:
    plan = allocate(sketch_of(tokens=None, time=1e9), find("t4")).plan
    assert training_memory(plan.model, plan.micro_batch, plan.context, plan.precision, "cuda") <= 0.9 * 16e9


def test_later_steps_memory_counts() -> None:
    def rest(sketch: Sketch) -> Usage:
        plan = sketch.plan
        assert isinstance(plan, TrainingPlan)
        trained = training_usage(plan.model, plan.steps, plan.batch, plan.context, plan.precision, CPU, plan.micro_batch)
        return trained.with_(peak_memory=predicted(400.0 * parameters(plan.model), "B"))

    free = allocate(sketch_of(tokens=None, time=36000), CPU).plan
    tight = allocate(sketch_of(tokens=None, rest=rest, time=36000, memory=6e8), CPU).plan
    assert 400 * parameters(tight.model) <= 6e8 < 400 * parameters(free.model)


def test_text_is_read_so_often_at_the_most() -> None:
    chosen = allocate(sketch_of(tokens=1e5, time=1e5), CPU, Requested(epochs=3))
    assert chosen.plan.tokens <= 3e5
    assert chosen.binding == "text"


def test_an_impossible_budget_says_what_is_short_and_by_how_much() -> None:
    with pytest.raises(BudgetError) as caught:
        allocate(sketch_of(rest=training_then(100, CPU), time=50), CPU)
    said = str(caught.value)
    assert "budget.time has 50 s left" in said
    assert "short" in said
    assert "1 min" in said
    with pytest.raises(BudgetError, match=r"budget\.money has \$0\.0000000010 left"):
        allocate(sketch_of(money=1e-9), GPU)
    with pytest.raises(BudgetError, match=r"budget\.memory allows 0 B"):
        allocate(sketch_of(time=100, memory=1e6), CPU)
    with pytest.raises(BudgetError, match="training tokens"):
        allocate(sketch_of(tokens=100, time=1000), CPU)
    with pytest.raises(BudgetError, match="left"):
        allocate(sketch_of(time=-5.0), CPU)


def test_nothing_to_plan_for_is_said() -> None:
    with pytest.raises(SettingError, match="no budget"):
        allocate(sketch_of(), CPU)
    with pytest.raises(SettingError, match="vocabulary"):
        allocate(Sketch(outlook=Outlook(Budget(time=5.0))), CPU)


def test_shapes_that_a_later_step_refuses_are_left_out() -> None:
    inner = training_then(1, CPU)

    def rest(sketch: Sketch) -> Usage:
        if sketch.model.width < 128:  # type: ignore[union-attr]
            raise SettingError("gptq.group_size: must divide the width")
        return inner(sketch)

    assert allocate(sketch_of(rest=rest, time=100), CPU).plan.model.width == 128

    def never(sketch: Sketch) -> Usage:
        raise SettingError("gptq.group_size: must divide the width")

    with pytest.raises(SettingError, match="group_size"):
        allocate(sketch_of(rest=never, time=100), CPU)


def test_a_training_with_figures_of_its_own_is_not_stretched() -> None:
    chosen = allocate(sketch_of(tokens=None, rest=lambda sketch: predicted_usage(seconds=5, hardware=CPU), time=100), CPU)
    assert chosen.binding == "law"
    assert chosen.plan.tokens < 1e12


def test_wishes_are_kept() -> None:
    plan = allocate(sketch_of(time=1000), CPU, Requested(context=128, smallest=192, largest=192, batch=6, precision="bf16")).plan
    assert (plan.context, plan.model.width, plan.batch, plan.precision) == (128, 192, 6, "bf16")
    grouped = allocate(sketch_of(time=1000), CPU, Requested(smallest=256, query_groups=4)).plan.model
    assert grouped.flat.heads == 4 * grouped.flat.kv_heads


def test_devices_share_a_batch_equally() -> None:
    plan = allocate(sketch_of(tokens=None, time=1000), GPU.with_(count=3)).plan
    assert plan.batch % (3 * plan.micro_batch) == 0
    with pytest.raises(SettingError, match="multiple of the 3 devices"):
        allocate(sketch_of(time=1000), GPU.with_(count=3), Requested(batch=4))


def test_planning_answers_at_once() -> None:
    begin = time.perf_counter()
    allocate(sketch_of(tokens=None, time=1e6, rest=training_then(1, GPU)), GPU)
    assert time.perf_counter() - begin < 5


@given(st.integers(1, 64).map(lambda n: 32 * n), st.integers(1, 8))
def test_shapes_are_models(width: int, groups: int) -> None:
    config = shape(width, 1000, 128, groups)
    assert config.flat.heads * config.flat.head_size == width
    assert config.flat.heads % config.flat.kv_heads == 0
    assert len(config.layers) >= 2


def test_the_ladder_rises_in_steps_of_a_quarter_at_the_most() -> None:
    ladder = list(widths(128, 8192))
    assert ladder[0] == 128
    assert all(1 < later / earlier <= 1.26 for earlier, later in pairwise(ladder))
    sizes = [parameters(shape(width, 1000, 128)) for width in ladder]
    assert sizes == sorted(sizes)


def test_rates_and_portions_follow_step_law() -> None:
    assert rules.learning_rate(1e9, 1e11) == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307)
    assert rules.learning_rate(1e5, 1e7) == rules.HIGHEST_RATE
    batch, micro = rules.portions(1e9, 1024, GPU)
    assert batch * 1024 == pytest.approx(0.58 * 1e9**0.571, rel=0.2)
    assert batch % micro == 0
    assert micro * 1024 <= MICRO_TOKENS["cuda"]
    assert rules.portions(1000, 256, CPU)[0] == 1
    assert rules.portions(1e9, 256, CPU, batch=7) == (7, 7)


def test_every_decision_is_explained() -> None:
    requested = Requested()
    chosen = allocate(sketch_of(time=300), CPU, requested)
    formulas = explain(chosen, CPU, requested)
    by_name = {formula["name"]: formula for formula in formulas}
    assert by_name["parameters"]["value"] == parameters(chosen.plan.model)
    assert by_name["bits per byte"]["value"] == "not predicted"
    assert all(formula["formula"] and formula["source"] for formula in formulas)
    assert all(not isinstance(formula["value"], float) or math.isfinite(formula["value"]) for formula in formulas)
    assert len(lines(formulas)) == len(formulas)
    large = allocate(sketch_of(vocabulary=32768, tokens=None, time=86400), GPU, requested)
    told = next(f for f in explain(large, GPU, requested) if f["name"] == "bits per byte")
    assert 0.5 < told["value"] < 1.5
    assert linear_parameters(large.plan.model) > 1e8
