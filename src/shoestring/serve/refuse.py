"""Every refusal in OpenAI's form, {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from shoestring.errors import ShoestringError, clipped, nearest
from shoestring.infer import Busy, Closed, TooLong
from shoestring.serve.wire import Chat, Completion

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}
FIELDS = {"/v1/completions": Completion.model_fields, "/v1/chat/completions": Chat.model_fields}


def refusal(
    status: int, message: str, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """A response that says no."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    # What a client sent may hold half a surrogate pair, which no encoding can carry back.
    text, blamed = (
        None if each is None else clipped(each, 1000).encode("utf-8", "replace").decode() for each in (message, param)
    )
    problem = {"message": text, "type": kind, "param": blamed, "code": code}
    return JSONResponse({"error": problem}, status, headers)


def install(app: FastAPI) -> None:
    """Give an application these forms for all that can go wrong."""

    @app.exception_handler(RequestValidationError)
    async def wrong_fields(request: Request, error: RequestValidationError) -> JSONResponse:
        message, param, code = explain(list(error.errors()), request.url.path)
        return refusal(400, message, param, code)

    @app.exception_handler(StarletteHTTPException)
    async def plain(request: Request, error: StarletteHTTPException) -> JSONResponse:
        path = clipped(request.url.path)
        known = {404: f"{request.method} {path}: no such address", 405: f"{request.method} is not offered here"}
        message = known.get(error.status_code, str(error.detail)) if error.detail in ("Not Found", "Method Not Allowed") else None
        code = {408: "request_timeout", 413: "request_too_large"}.get(error.status_code)
        return refusal(error.status_code, message or str(error.detail), code=code, headers=dict(error.headers or {}))

    @app.exception_handler(ShoestringError)
    async def user_error(request: Request, error: ShoestringError) -> JSONResponse:
        if isinstance(error, Busy):
            return refusal(429, str(error), code="queue_full", headers={"Retry-After": str(math.ceil(error.retry_after))})
        if isinstance(error, Closed):
            return refusal(503, str(error), code="shutting_down", headers={"Retry-After": "5"})
        field = "messages" if "chat" in request.url.path else "prompt"
        message = str(error).replace("prompt:", f"{field}:", 1)
        return refusal(400, message, field, "context_length_exceeded" if isinstance(error, TooLong) else None)


def explain(problems: list[dict[str, Any]], path: str) -> tuple[str, str | None, str | None]:
    """The first field that is wrong: what to say about it, its dotted path, and a code."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}", None, "invalid_json"
    place = first["loc"][1:]
    if not place:
        return "the body must be a JSON object, sent with Content-Type: application/json", None, "invalid_json"
    known = FIELDS.get(path, {})
    # A place inside a union ends in the names of its branches, which say nothing to who asks: keep what they can see.
    param = ".".join(str(part) for number, part in enumerate(place) if number == 0 or _visible(part))
    if first["type"] == "extra_forbidden":
        hint = f"; {nearest(str(place[-1]), known)}" if len(place) == 1 else ""
        return f"{param}: no such field{hint}", param, "unknown_field"
    if first["type"] == "missing":
        return f"{param}: must be given", param, "missing_field"
    same = [each for each in problems if each["loc"][1] == place[0]]
    messages = dict.fromkeys(each["msg"].removeprefix("Value error, ") for each in same)
    message = " or ".join(text[0].lower() + text[1:] for text in messages)
    return f"{param}: {message}", param, "invalid_value"


def _visible(part: Any) -> bool:
    """True for a position in a list and for a field's name; false for a branch of a union such as `list[int]`."""
    return isinstance(part, int) or (part.isidentifier() and part not in ("str", "int", "float", "TextPart"))
