"""The engine: the same tokens as `generate`, joins and leaves, limits, cancelling, failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from shoestring.errors import SettingError
from shoestring.infer import Busy, Closed, Engine, Sampling, generate
from shoestring.infer.engine import Histogram
from shoestring.model import Transformer

PROMPTS = [[1, 2, 3], [5] * 40, [9, 8, 7, 6, 5], [42]]


@pytest.fixture
def engine(model: Transformer) -> Iterator[Engine]:
    with Engine(model, slots=2, waiting=4) as made:
        yield made


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def long(count: int = 180) -> Sampling:
    return Sampling(temperature=0, max_tokens=count)


def test_answers_equal_those_of_generate(engine: Engine, model: Transformer) -> None:
    settings = [Sampling(temperature=1.2, max_tokens=20 + 5 * n, seed=n) for n in range(4)]
    answers = [engine.submit(prompt, one) for prompt, one in zip(PROMPTS, settings)]
    assert [list(answer) for answer in answers] == generate(model, PROMPTS, settings)
    assert [answer.finish for answer in answers] == ["length"] * 4
    counters = engine.counters
    assert counters.tokens_in == sum(map(len, PROMPTS))
    assert counters.tokens_out == sum(one.max_tokens for one in settings)
    assert counters.finished == {"length": 4}
    assert counters.first_token.count == counters.answer.count == 4
    assert counters.between_tokens.count == counters.tokens_out - 4
    assert (engine.running, engine.waiting) == (0, 0)


def test_tokens_arrive_while_the_answer_is_made(engine: Engine) -> None:
    answer = engine.submit(PROMPTS[0], long())
    next(iter(answer))
    assert answer.finish is None
    assert len(list(answer)) == 179


def test_a_full_queue_refuses(engine: Engine) -> None:
    first = [engine.submit(prompt, long(150)) for prompt in PROMPTS[:2]]
    until(lambda: engine.running == 2)
    rest = [engine.submit([3], long(150)) for _ in range(4)]
    with pytest.raises(Busy) as error:
        engine.submit([3], long(150))
    assert error.value.retry_after >= 1
    assert engine.counters.rejected == 1
    for answer in first + rest:
        answer.cancel()
    until(lambda: engine.running == engine.waiting == 0)
    assert engine.counters.finished["cancelled"] == 6


def test_cancelled_while_waiting_or_running(engine: Engine) -> None:
    running = [engine.submit([3], long()) for _ in range(2)]
    until(lambda: engine.running == 2)
    waiting = engine.submit([3], long())
    waiting.cancel()
    assert list(waiting) == []
    assert waiting.finish == "cancelled"
    running[0].cancel()
    assert len(list(running[0])) < 180
    assert len(list(running[1])) == 180
    running[1].cancel()
    assert running[1].finish == "length"


def test_a_listener_that_fails_ends_its_own_answer_only(engine: Engine) -> None:
    def broken(token: int | None) -> None:
        raise RuntimeError("the loop is closed")

    bad = engine.submit([3], long(), listener=broken)
    good = engine.submit([4], long(30))
    assert len(list(good)) == 30
    until(lambda: bad.finish is not None)
    assert bad.finish == "cancelled"
    assert "the loop is closed" in bad.failure


def test_a_failed_pass_ends_what_it_concerned_and_the_engine_goes_on(
    engine: Engine, model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model.blocks[0].feed_forward, "forward", lambda x: 1 / 0)
        answer = engine.submit([3], long(5))
        assert list(answer) == []
        assert answer.finish == "error"
        assert "ZeroDivisionError" in answer.failure
    assert len(list(engine.submit([3], long(5)))) == 5
    assert engine.counters.finished == {"error": 1, "length": 1}


def test_what_can_not_be_answered_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(SettingError, match="context of 192"):
        engine.submit([1] * 190, long(10))


def test_closing_waits_for_those_at_hand(model: Transformer) -> None:
    engine = Engine(model, slots=1)
    answers = [engine.submit([3], long(20)) for _ in range(3)]
    engine.close(grace=30)
    assert [len(list(answer)) for answer in answers] == [20] * 3
    with pytest.raises(Closed):
        engine.submit([3], long())
    assert not engine.alive


def test_closing_without_patience_cancels(model: Transformer) -> None:
    engine = Engine(model, slots=1)
    answers = [engine.submit([3], long()) for _ in range(3)]
    engine.close()
    assert [answer.finish for answer in answers] == ["cancelled"] * 3
    assert all(len(list(answer)) < 180 for answer in answers)


def test_many_threads_at_once(model: Transformer) -> None:
    """Thirty requests from ten threads: each hears its own answer."""
    prompts = [[n % 90 + 1, 3] for n in range(30)]
    expected = generate(model, prompts, long(12))
    heard: dict[int, list[int]] = {}
    with Engine(model, slots=4, waiting=30) as engine:

        def ask(first: int) -> None:
            for number in range(first, 30, 10):
                heard[number] = list(engine.submit(prompts[number], long(12)))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [heard[number] for number in range(30)] == expected


def test_histogram_buckets() -> None:
    histogram = Histogram()
    for value in (0.001, 0.002, 70.0):
        histogram.observe(value)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1], histogram.count) == (1, 1, 1, 3)
    assert histogram.total == pytest.approx(70.003)
