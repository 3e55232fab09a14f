"""What stands before the application: who may ask, how much and how long a request may be, and what becomes of our own faults.

Three pieces of ASGI, from the outside in: `Faults`, `Guard`, `BodyLimit`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import socket
from collections.abc import Iterable

from fastapi import FastAPI, HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoestring.errors import shown
from shoestring.serve.refuse import refusal
from shoestring.serve.settings import Settings

LOG = logging.getLogger("uvicorn.error")


def install(app: FastAPI, settings: Settings) -> None:
    """Put the three before an application."""
    app.add_middleware(BodyLimit, limit=settings.request_bytes, seconds=settings.body_seconds)
    app.add_middleware(Guard, hosts=settings.hosts, key=settings.api_key)
    app.add_middleware(Faults)


class Faults:
    """A fault of our own is one line in the log and a 500 in OpenAI's form, where the response has not begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http":
                raise
            LOG.error(
                "%s %s: %s: %s", scope["method"], shown(scope["path"]), type(error).__name__, shown(str(error), quote=False)
            )
            if not begun:
                await refusal(500, f"the server failed: {type(error).__name__}", code="internal_error")(scope, receive, send)


class Guard:
    """Refuses a host name that is not ours, and under /v1 a missing or wrong key."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None = None, key: str | None = None) -> None:
        self.app = app
        self.hosts = None if hosts is None else frozenset(name.lower() for name in hosts)
        self.key = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (response := self._refused(scope)) is not None:
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refused(self, scope: Scope) -> ASGIApp | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self.hosts is not None and not allowed(host, self.hosts):
            message = f"host {shown(host)}: not a name of this server; start it with --hosts to allow one"
            return refusal(403, message, code="wrong_host")
        if self.key is not None and scope["path"].startswith("/v1/"):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self.key):
                what = "wrong key" if given else "no key"
                message = f"{what}: send the server's key as 'Authorization: Bearer KEY'"
                return refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return None


def allowed(host: str, names: Iterable[str]) -> bool:
    """Whether a Host header is an IP address, or one of some names, whatever its port; a request without one passes.

    An address can't be bent: a browser that sends it was told it by the person, or by a page that knew it before.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    name = name.strip("[]").rstrip(".").lower()
    if not name or "*" in names or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_names() -> tuple[str, ...]:
    """The names under which this machine knows itself."""
    return ("localhost", socket.gethostname().lower())


class BodyLimit:
    """Refuses a body larger than allowed with 413, at once when its length is announced, and one that dawdles with 408."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self.app = app
        self.limit, self.seconds = limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and (len(announced) > 15 or int(announced) > self.limit):
            response = refusal(
                413, self._said(announced.decode()[:20]), code="request_too_large", headers={"Connection": "close"}
            )
            await response(scope, receive, send)
            return
        read, whole = 0, False
        end = asyncio.get_running_loop().time() + self.seconds

        async def counted() -> Message:
            nonlocal read, whole
            if whole:  # what still comes is the client's leaving, however late
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError as error:
                reason = f"the body did not arrive within {self.seconds:g} s; send it at once"
                raise HTTPException(408, reason, headers={"Connection": "close"}) from error
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self.limit:
                raise HTTPException(413, self._said(str(read)), headers={"Connection": "close"})
            return message

        await self.app(scope, counted, send)

    def _said(self, size: str) -> str:
        return f"the body has {size} bytes or more, at most {self.limit} are taken; send less"
