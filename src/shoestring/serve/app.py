"""The application: OpenAI's addresses, health, metrics and the chat page, over one engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HTTPRequest
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope, Send

from shoestring.errors import shown
from shoestring.infer import Engine, TooLong, stop_tokens
from shoestring.model import Transformer
from shoestring.serve import guard, refuse
from shoestring.serve.metrics import registry
from shoestring.serve.reply import Failed, Reply
from shoestring.serve.settings import Settings
from shoestring.serve.wire import Chat, Completion, Refusal, Request
from shoestring.tokenizer import Tokenizer
from shoestring.tokenizer.bytelevel import is_byte_level

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
"""The chat page may reach nothing but this server."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "A request that can't be served"},
    503: {"model": Refusal, "description": "The server is shutting down"},
}
ANSWERS = {**REFUSALS, 200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer"}}
SHORT = 1 << 14
"""Characters that are always cut into tokens: their exact number is worth its millisecond."""
CLIENT_GONE = 499
"""nginx' status for a client that left; it is seen in logs only."""


def build(model: Transformer, tokenizer: Tokenizer, name: str, settings: Settings) -> FastAPI:
    """The application for a model in memory (see `shoestring.serve.build`)."""
    service = Service(model, tokenizer, name, settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.open()
        yield
        await asyncio.to_thread(service.engine.close, settings.grace)

    app = FastAPI(title="Shoestring", version="1", lifespan=life, docs_url=None, redoc_url=None)
    app.state.service = service
    guard.install(app, settings)
    refuse.install(app)
    _information(app, service)

    @app.post("/v1/completions", responses=ANSWERS)
    async def completions(body: Completion, request: HTTPRequest) -> Response:
        """Continue a text."""
        if isinstance(body.prompt, list):
            return await service.respond(request, body, body.prompt or [tokenizer.end])
        service.refuse_too_long(len(body.prompt))
        prompt = await asyncio.to_thread(tokenizer.prompt, body.prompt)
        return await service.respond(request, body, prompt or [tokenizer.end])

    @app.post("/v1/chat/completions", responses=ANSWERS)
    async def chat(body: Chat, request: HTTPRequest) -> Response:
        """Answer in a conversation."""
        messages = [message.plain() for message in body.messages]
        service.refuse_too_long(sum(len(message["content"]) for message in messages))
        # In a thread: a template is the model's own program, and may take its whole deadline.
        return await service.respond(request, body, await asyncio.to_thread(tokenizer.chat_tokens, messages))

    return app


def _information(app: FastAPI, service: Service) -> None:
    """The addresses that only tell something."""
    metrics = registry(lambda: service.engine, service.name)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        content = files("shoestring.serve").joinpath("page.html").read_text("utf-8")
        return HTMLResponse(content, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [service.card()]}

    @app.get("/v1/models/{name:path}", responses=REFUSALS)
    async def one_model(name: str) -> Response:
        """That model, by name."""
        return JSONResponse(service.card()) if name == service.name else service.unknown(name)

    @app.get("/health", responses={503: {"description": "It takes no requests"}})
    async def health() -> Response:
        """Whether requests are taken."""
        engine = service.engine
        record = {"status": "ok" if engine.alive else "stopping", "running": engine.running, "waiting": engine.waiting}
        return JSONResponse(record, 200 if engine.alive else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)


class Service:
    """A model with its engine, and how its answers are put into responses."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, name: str, settings: Settings) -> None:
        self.model, self.tokenizer, self.name, self.settings = model, tokenizer, name, settings
        self.started = int(time.time())
        self.ends = stop_tokens(tokenizer)
        self.engine = Engine(model, settings.slots, settings.waiting)
        # Where every byte of a text is in some token; a normalizer may shrink a text before it is cut.
        whole = is_byte_level(tokenizer.record) and tokenizer.record.get("normalizer") is None
        self._token_bytes = int(tokenizer.byte_lengths().max()) if whole else None

    def open(self) -> None:
        """Have an engine that takes requests, also when the application is started a second time."""
        if not self.engine.alive:
            self.engine = Engine(self.model, self.settings.slots, self.settings.waiting)

    def card(self) -> dict[str, Any]:
        """The model in OpenAI's form, with its context."""
        about = {"id": self.name, "object": "model", "created": self.started, "owned_by": "shoestring"}
        return {**about, "context_length": self.model.config.context}

    def unknown(self, name: str) -> JSONResponse:
        """The refusal of a model that isn't here."""
        return refuse.refusal(404, f"model: {shown(name)} is not served here; allowed: {self.name}", "model", "model_not_found")

    def refuse_too_long(self, characters: int) -> None:
        """Refuse a text that can't fit the context, before time is spent on what is in it.

        Raises:
            TooLong: it has more bytes than a context full of the longest token.
        """
        context = self.model.config.context
        if self._token_bytes is not None and characters > max(SHORT, context * self._token_bytes):
            raise TooLong(f"prompt: {characters} characters exceed the model's context of {context} tokens; shorten it")

    async def respond(self, request: HTTPRequest, body: Request, prompt: list[int]) -> Response:
        """Ask the engine and answer, in one piece or as events."""
        if body.model != self.name:
            return self.unknown(body.model)
        room = max(1, self.model.config.context - len(prompt))
        sampling = body.sampling(body.limit or min(self.settings.max_tokens, room))
        reply = Reply(self.engine, self.tokenizer, prompt, sampling, self.ends, body.stops)
        chat = isinstance(body, Chat)
        if body.stream:
            return Events(self._events(reply, chat, body.usage_wanted), reply)
        try:
            text = await reply.whole(request)
        except Failed as error:
            status = 500 if self.engine.alive else 503
            return refuse.refusal(status, f"the answer could not be finished: {error}", code="internal_error")
        if text is None:
            return Response(status_code=CLIENT_GONE)
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reply.finish}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return JSONResponse({**self._head(reply, chat, whole=True), "choices": [choice], "usage": reply.usage})

    async def _events(self, reply: Reply, chat: bool, usage: bool) -> AsyncIterator[str]:
        """An answer as server-sent events."""
        head = self._head(reply, chat, whole=False)

        def event(piece: dict[str, Any], finish: str | None = None) -> str:
            choice = {"index": 0, **piece, "logprobs": None, "finish_reason": finish}
            return _event({**head, "choices": [choice], **({"usage": None} if usage else {})})

        def piece(text: str) -> dict[str, Any]:
            return {"delta": {"content": text}} if chat else {"text": text}

        if chat:
            yield event({"delta": {"role": "assistant", "content": ""}})
        try:
            async for text in reply.pieces():
                yield event(piece(text))
        except Failed as error:
            problem = {"message": f"the answer could not be finished: {error}", "type": "server_error"}
            yield _event({"error": {**problem, "param": None, "code": "internal_error"}})
        else:
            yield event({"delta": {}} if chat else {"text": ""}, reply.finish)
            if usage:
                yield _event({**head, "choices": [], "usage": reply.usage})
        yield "data: [DONE]\n\n"

    def _head(self, reply: Reply, chat: bool, whole: bool) -> dict[str, Any]:
        kind = ("chat.completion" if whole else "chat.completion.chunk") if chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{reply.id}",
            "object": kind,
            "created": reply.created,
            "model": self.name,
        }


class Events(StreamingResponse):
    """Server-sent events; however the response ends, and even if it never begins, the answer behind it ends too."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], reply: Reply) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.cancel()


def _event(record: dict[str, Any]) -> str:
    return f"data: {json.dumps(record, ensure_ascii=False)}\n\n"
