"""Connections that are bounded in number and may not dawdle: uvicorn's own protocol with a deadline for a request's head."""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SPARE_FILES = 64
"""Files that the process keeps for itself: the model, libraries, the log."""
FULL = (
    b'{"error": {"message": "too many connections; try again later", "type": "unavailable_error", "param": null, '
    b'"code": "too_many_connections"}}'
)
REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(FULL), FULL)
)


class Bounded(H11Protocol):
    """A connection that is refused where too many are open, and closed when the head of a request is late.

    The head is due `head_seconds` after the connection was made and, on a connection that is kept, after the first byte of
    the next request; uvicorn closes a kept connection by itself when none comes.
    """

    def __init__(self, *arguments: Any, most: int, head_seconds: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._most, self._head_seconds = most, head_seconds
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._most:
            self.transport.write(REFUSED)
            self.transport.close()
        else:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._met()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._idle and self._due is None:
            self._expect()
        super().data_received(data)
        if not self._idle:
            self._met()

    @property
    def _idle(self) -> bool:
        """True while no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _expect(self) -> None:
        self._due = self.loop.call_later(self._head_seconds, self.transport.close)

    def _met(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


def protocol(connections: int, head_seconds: float) -> Any:
    """What makes a connection for uvicorn.

    Args:
        connections: open at the most; fewer where this process may not open so many files.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = connections if files == resource.RLIM_INFINITY else max(1, min(connections, files - SPARE_FILES))
    return partial(Bounded, most=most, head_seconds=head_seconds)
