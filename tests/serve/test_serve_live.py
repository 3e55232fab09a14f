"""A real server over loopback: streaming as it happens, a client that leaves, many at once, a shutdown in good order."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from shoestring.errors import SettingError
from shoestring.serve import serve
from tests.serve.live import serving

CANCELLED = 'shoestring_answers_total{finish="cancelled"'


def body(**fields: object) -> dict[str, object]:
    return {"model": "tiny", "prompt": "Hello", "temperature": 1, "seed": 1, **fields}


def figure(address: str, name: str) -> float:
    text = httpx.get(f"{address}/metrics").text
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name)))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_streaming_over_a_real_connection(server: str) -> None:
    address = server
    arrived, text = [], ""
    with httpx.stream("POST", f"{address}/v1/completions", json=body(stream=True, max_tokens=60), timeout=60) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                arrived.append(time.perf_counter())
                text += json.loads(line[6:])["choices"][0]["text"]
    assert arrived[-1] - arrived[0] > 0.01, "all came at once"
    whole = httpx.post(f"{address}/v1/completions", json=body(max_tokens=60), timeout=60).json()
    assert whole["choices"][0]["text"] == text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_answer(server: str, stream: bool) -> None:
    """Greedy, this model repeats itself and never stops: only the client's leaving can end 4,000 tokens so early."""
    address = server
    before = figure(address, CANCELLED)
    request = body(stream=stream, max_tokens=4000, temperature=0)
    with httpx.Client(timeout=30 if stream else 0.7) as client:
        try:
            with client.stream("POST", f"{address}/v1/completions", json=request) as response:
                next(response.iter_lines())
        except httpx.ReadTimeout:
            assert not stream
    wait_for(lambda: figure(address, CANCELLED) == before + 1)
    assert figure(address, "shoestring_running_requests") == 0


def test_many_clients_at_once(server: str) -> None:
    """Two slots and four places in the queue: six clients are served, each with its own answer."""
    address = server

    def ask(seed: int) -> str:
        response = httpx.post(f"{address}/v1/completions", json=body(seed=seed, max_tokens=30), timeout=60)
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["text"]

    alone = [ask(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == alone


def test_told_to_stop_it_ends_in_good_order(checkpoint: Path) -> None:
    """An answer too long for the grace of 2 s is cut off, but its stream is ended properly and says why."""
    with serving(checkpoint) as (address, process):
        lines = []
        request = body(stream=True, max_tokens=4000, temperature=0)
        with httpx.stream("POST", f"{address}/v1/completions", json=request, timeout=60) as response:
            for line in filter(None, response.iter_lines()):
                lines.append(line)
                if len(lines) == 3:
                    process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        assert lines[-1] == "data: [DONE]"
        assert "shutting down" in lines[-2]


def test_a_port_that_is_taken(server: str, checkpoint: Path) -> None:
    port = int(server.rpartition(":")[2])
    with pytest.raises(SettingError, match=rf"127.0.0.1:{port}: can't listen there"):
        serve(str(checkpoint), port=port)
    with pytest.raises(SettingError, match="port 70000: allowed"):
        serve(str(checkpoint), port=70000)
    with pytest.raises(SettingError, match=r"serve.slot: no such setting; did you mean 'slots'\?"):
        serve(str(checkpoint), slot=3)
