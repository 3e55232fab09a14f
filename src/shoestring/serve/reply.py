"""One answer on its way from the engine's thread to a client: tokens become text, a stop string or a lost client ends it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

from fastapi import Request as HTTPRequest

from shoestring.infer import Engine, Sampling
from shoestring.serve.text import StopStrings
from shoestring.tokenizer import TextStream, Tokenizer


class Failed(Exception):
    """The engine could not finish an answer."""


class Reply:
    """An answer in the making, with what its response says of it."""

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, prompt: list[int], sampling: Sampling, ends: set[int], stops: list[str]
    ) -> None:
        """Ask the engine; call this in the event loop.

        Raises:
            SettingError, Busy, Closed: what `Engine.submit` raises.
        """
        loop = asyncio.get_running_loop()
        self._tokens: asyncio.Queue[int | None] = asyncio.Queue()
        self._text, self._stops = TextStream(tokenizer, prompt), StopStrings(stops)
        self.id = uuid.uuid4().hex
        self.created = int(time.time())
        self.prompt_tokens, self.made = len(prompt), 0
        self.finish = "length"

        def listen(token: int | None) -> None:
            loop.call_soon_threadsafe(self._tokens.put_nowait, token)

        self._answer = engine.submit(prompt, sampling, ends, listen)

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it comes, each piece whole characters.

        Raises:
            Failed: the engine gave up; what was made before has been given out.
        """
        try:
            while (token := await self._tokens.get()) is not None:
                self.made += 1
                if piece := self._stops.push(self._text.push(token)):
                    yield piece
                if self._stops.found:
                    break
            if not self._stops.found and (piece := self._stops.push(self._text.flush()) + self._stops.flush()):
                yield piece
        finally:
            self.cancel()
        if self._answer.finish in ("error", "cancelled") and not self._stops.found:
            raise Failed(self._answer.failure or "the server is shutting down")
        self.finish = "stop" if self._stops.found or self._answer.finish == "stop" else "length"

    async def whole(self, request: HTTPRequest) -> str | None:
        """The complete text, or None when the client has gone away; the answer is then cancelled.

        Raises:
            Failed: the engine gave up.
        """
        work = asyncio.ensure_future(self._collect())
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            work.cancel()
            gone.cancel()
            self.cancel()

    def cancel(self) -> None:
        """Stop making it; harmless when it has ended."""
        self._answer.cancel()

    @property
    def usage(self) -> dict[str, int]:
        """Token counts in OpenAI's form."""
        total = self.prompt_tokens + self.made
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.made, "total_tokens": total}

    async def _collect(self) -> str:
        return "".join([piece async for piece in self.pieces()])


async def _gone(request: HTTPRequest) -> None:
    """Return when the client has gone away. Its body has been read, so all that can still come is its leaving."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
