"""Whatever is sent, by the server's own schema or against it: never a 5xx, and every response in the form that is declared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from shoestring.model import Transformer
from shoestring.serve import Settings, build
from shoestring.tokenizer import Tokenizer

OPERATIONS = (
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
    ("GET", "/metrics"),
)

HEALTH = list(HealthCheck)


@pytest.fixture(scope="module")
def served(model: Transformer, tokenizer: Tokenizer) -> Iterator[FastAPI]:
    app = build(model, tokenizer, "tiny", Settings(slots=2, request_bytes=20_000, max_tokens=4))
    yield app
    app.state.service.engine.close()


@pytest.fixture(scope="module")
def schema(served: FastAPI) -> schemathesis.BaseSchema:
    found = schemathesis.openapi.from_asgi("/openapi.json", served)
    assert {(operation.method.upper(), operation.path) for operation in _operations(found)} == set(OPERATIONS)
    return found


def _operations(schema: schemathesis.BaseSchema) -> Iterator[schemathesis.APIOperation]:
    return (result.ok() for result in schema.get_all_operations())


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "wrong"])
@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "POST"])
def test_nothing_posted_breaks_the_server(schema: schemathesis.BaseSchema, path: str, mode: GenerationMode) -> None:
    _fuzz(schema, path, mode, 25)


@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "GET"])
def test_nothing_asked_for_breaks_the_server(schema: schemathesis.BaseSchema, path: str) -> None:
    _fuzz(schema, path, GenerationMode.POSITIVE, 10)


def _fuzz(schema: schemathesis.BaseSchema, path: str, mode: GenerationMode, count: int) -> None:
    operation = next(each for each in _operations(schema) if each.path == path)

    # Explaining and shrinking cost more than the whole run; the case that fails is printed as it is.
    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=count, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True
    )
    def check(case: schemathesis.Case) -> None:
        body = case.body
        if isinstance(body, dict):
            if isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 8:
                body["max_tokens"] = 8
            # A name drawn at random is never the one that is served; without this the model would hardly be asked.
            if isinstance(body.get("model"), str):
                body["model"] = "tiny"
        case.call_and_validate(checks=[not_a_server_error, content_type_conformance, response_schema_conformance])

    check()
