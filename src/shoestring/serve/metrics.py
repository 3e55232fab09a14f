"""The engine's counters in Prometheus' form. Each application has a registry of its own, so that two can live in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shoestring.infer import Engine
from shoestring.infer.engine import SECONDS, Histogram


class EngineMetrics(Collector):
    """Reads an engine when it is asked; nothing is counted twice."""

    def __init__(self, engine: Callable[[], Engine], name: str) -> None:
        self._engine = engine
        self._name = name

    def collect(self) -> Iterator[Metric]:
        engine = self._engine()
        counters = engine.counters
        yield self._counter("prompt_tokens", "Prompt tokens read", counters.tokens_in)
        yield self._counter("generated_tokens", "Tokens made", counters.tokens_out)
        yield self._counter("rejected_requests", "Requests refused because the queue was full", counters.rejected)
        answers = CounterMetricFamily("shoestring_answers", "Answers by how they ended", labels=("model", "finish"))
        for finish in ("stop", "length", "cancelled", "error"):
            answers.add_metric((self._name, finish), counters.finished[finish])
        yield answers
        yield self._gauge("running_requests", "Answers being made", engine.running)
        yield self._gauge("waiting_requests", "Requests that wait for a slot", engine.waiting)
        yield self._gauge("slots", "Answers that can be made together", engine.slots)
        yield self._histogram("time_to_first_token_seconds", "From the request to its first token", counters.first_token)
        yield self._histogram("time_per_token_seconds", "From one token of an answer to its next", counters.between_tokens)
        yield self._histogram("answer_seconds", "From the request to the end of its answer", counters.answer)

    def _counter(self, name: str, help: str, value: float) -> Metric:
        family = CounterMetricFamily(f"shoestring_{name}", help, labels=("model",))
        family.add_metric((self._name,), value)
        return family

    def _gauge(self, name: str, help: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"shoestring_{name}", help, labels=("model",))
        family.add_metric((self._name,), value)
        return family

    def _histogram(self, name: str, help: str, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(f"shoestring_{name}", help, labels=("model",))
        buckets, total = [], 0
        for bound, count in zip([*map(str, SECONDS), "+Inf"], list(histogram.counts)):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric((self._name,), buckets, histogram.total)
        return family


def registry(engine: Callable[[], Engine], name: str) -> CollectorRegistry:
    """A registry for one application."""
    made = CollectorRegistry()
    made.register(EngineMetrics(engine, name))
    return made
