"""Who may ask, how long a request may take to arrive, and what our own faults look like."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from shoestring.cli.answers import serve as command
from shoestring.model import Transformer
from shoestring.serve import Settings, build
from shoestring.serve import guard as room
from shoestring.tokenizer import Tokenizer
from tests.serve.live import serving


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("[::1]", True),
        ("192.168.1.7:80", True),
        ("LOCALHOST.", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:80", False),
        ("[evil]", False),
    ],
)
def test_host_names(host: str, fits: bool) -> None:
    assert room.allowed(host, {"localhost"}) is fits
    assert room.allowed(host, {"*"})


def test_a_strange_host_is_refused(model: Transformer, tokenizer: Tokenizer) -> None:
    app = build(model, tokenizer, "tiny", Settings(hosts=("localhost", "testserver")))
    with TestClient(app) as client:
        assert client.get("/health").status_code == 200
        refused = client.get("/health", headers={"host": "evil.example"})
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "wrong_host"


def test_a_key_is_asked_for_under_v1(model: Transformer, tokenizer: Tokenizer) -> None:
    settings = Settings(api_key="sesame")
    assert "sesame" not in repr(settings)
    with TestClient(build(model, tokenizer, "tiny", settings)) as client:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "sesame"},
            {"authorization": "Bearer ses\xe4me"},
        ):
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            refused = client.post("/v1/completions", json=body, headers=raw)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
            assert refused.headers["www-authenticate"] == "Bearer"
        assert client.post("/v1/completions", json=body, headers={"authorization": "Bearer sesame"}).status_code == 200
        assert [client.get(place).status_code for place in ("/", "/health", "/metrics")] == [200, 200, 200]


def test_our_own_fault_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    room.install(app, Settings())

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("two\nlines " + "x" * 5000)

    with caplog.at_level(logging.ERROR), TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/broken")
    assert response.status_code == 500
    assert response.json()["error"] == {
        "message": "the server failed: RuntimeError",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    [record] = caplog.records
    assert record.exc_info is None
    assert len(record.getMessage()) < 500


def test_every_setting_is_an_option() -> None:
    import inspect

    parameters = inspect.signature(command).parameters
    for name, field in Settings.model_fields.items():
        assert parameters[name].default == field.default, name


def talk(address: str, *pieces: bytes, wait: float = 0.0) -> bytes:
    """Send pieces over a bare connection and read until the server closes it."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(wait)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def test_who_dawdles_is_cut_off(checkpoint: Path) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    with serving(checkpoint, head_seconds=0.5, body_seconds=0.5, connections=3) as (address, _):
        started = time.monotonic()
        assert talk(address, b"GET /health HTTP/1.1\r\nHost: local") == b""  # a head that never ends
        assert talk(address) == b""  # not a byte
        late = talk(address, head + b"\r\n{")
        assert late.startswith(b"HTTP/1.1 408")
        assert b"request_timeout" in late
        assert time.monotonic() - started < 10
        # A kept connection may rest, and its next head has its own deadline.
        ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert talk(address, ask, ask, b"GET /he", wait=0.3).count(b"200 OK") == 2
        assert httpx.get(f"{address}/health").status_code == 200


def test_connections_are_bounded(checkpoint: Path) -> None:
    with serving(checkpoint, connections=3) as (address, _):
        host, _, port = address.removeprefix("http://").partition(":")
        held = [socket.create_connection((host, int(port))) for _ in range(3)]
        time.sleep(0.3)
        assert b"too_many_connections" in talk(address)
        for connection in held:
            connection.close()
        time.sleep(0.3)
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/health", headers={"host": "evil.example"}).status_code == 403
