"""From a model's name to a listening server."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import uvicorn

from shoestring import measure
from shoestring import model as room
from shoestring.errors import DeviceError, FileError, SettingError, shown
from shoestring.infer.answering import halved
from shoestring.model import Transformer
from shoestring.serve.app import Service, build
from shoestring.serve.connections import protocol
from shoestring.serve.guard import LOG, own_names
from shoestring.serve.settings import Settings
from shoestring.technique import configure
from shoestring.tokenizer import Tokenizer


def run(
    source: str, host: str, port: int, name: str | None, ready: Callable[[str, str], None] | None, given: dict[str, object]
) -> None:
    """See `shoestring.serve.serve`."""
    settings = configure(Settings, given, "serve")
    # The port first: loading a model for nothing costs the user half a minute.
    listening = listen(host, port)
    with listening:
        torch.set_num_threads(settings.threads or measure.free_threads())
        model, tokenizer = load(source, settings)
        name = name or Path(source).name.removesuffix(".gguf")
        weight = model.embedding.weight
        address, taken = listening.getsockname()[:2]
        place = f"[{address}]" if ":" in address else address
        _say(f"{name}: {weight.dtype} on {weight.device}, {torch.get_num_threads()} threads, {settings.slots} slots")
        try:
            tokenizer.check_chat()
        except FileError as error:
            _say(f"warning: chats will be refused, completions work: {error}")
        if not ipaddress.ip_address(address).is_loopback and settings.api_key is None:
            _say(
                f"warning: whoever reaches {place}:{taken} may use this model; ask for a key with --api-key, or stay on 127.0.0.1"
            )
        app = build(model, tokenizer, name, settings.model_copy(update={"hosts": (host, *own_names(), *(settings.hosts or ()))}))
        # Who reads the address may connect at once; what comes before the server is ready waits its turn.
        listening.listen(128)
        _say(f"chat http://{place}:{taken}/   API http://{place}:{taken}/v1   stop with Ctrl+C")
        if ready is not None:
            ready(f"http://{place}:{taken}", name)
        config = uvicorn.Config(
            app,
            http=protocol(settings.connections, settings.head_seconds),
            ws="none",
            log_level="warning",
            # The engine ends its answers within the grace; a few seconds more let the last events reach their clients.
            timeout_graceful_shutdown=round(settings.grace) + 5,
        )
        Server(config, app.state.service).run(sockets=[listening])


class Server(uvicorn.Server):
    """Told to stop, it closes the engine while connections are still open, so that every stream gets its proper end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_fault)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.create_task(asyncio.to_thread(self._service.engine.close, self._service.settings.grace))
        await super().shutdown(sockets)
        await closing


def listen(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        SettingError: the address is not this machine's, or the port is taken or reserved.
    """
    if not 0 <= port <= 65535:
        raise SettingError(f"port {port}: allowed: 0 (any free one) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise SettingError(f"{host}:{port}: can't listen there ({error.strerror}); choose another --port or --host") from error
    return made


def load(source: str, settings: Settings) -> tuple[Transformer, Tokenizer]:
    """The model on the device and in the precision that the settings say, or that suit it.

    Raises:
        DeviceError: a GPU was asked for and there is none.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("serve.device: 'cuda' was asked for and PyTorch finds no GPU; allowed here: cpu")
    half = settings.precision == "bf16"
    if settings.precision == "auto":
        half = halved(source, device)
    return room.load(source, torch.bfloat16 if half else torch.float32, device)


def _fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong outside a request, such as a connection that can't be accepted: one line."""
    error = context.get("exception")
    LOG.error("%s%s", context["message"], "" if error is None else f": {type(error).__name__}: {shown(str(error), quote=False)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
