"""An OpenAI-compatible server with a chat page and Prometheus metrics, on the engine of `infer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shoestring.serve.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from shoestring.model import Transformer
    from shoestring.tokenizer import Tokenizer

__all__ = ["Settings", "build", "serve"]


def build(model: Transformer, tokenizer: Tokenizer, name: str = "model", settings: Settings | None = None) -> FastAPI:
    """The application for a model in memory; run it with any ASGI server.

    Args:
        name: what clients call the model.
        settings: limits and defaults.
    """
    from shoestring.serve.app import build as build_app

    return build_app(model, tokenizer, name, settings or Settings())


def serve(
    source: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    ready: Callable[[str, str], None] | None = None,
    **settings: object,
) -> None:
    """Load a model and answer until interrupted; answers at hand get `grace` seconds to end.

    Args:
        source: whatever `model.load` opens.
        port: 0 takes a free one; the address is printed.
        name: what clients call the model; the last part of `source` when not given.
        ready: called with the address and the model's name once requests are taken.
        settings: fields of `Settings`.

    Raises:
        SettingError: a setting that does not exist or fit, or a port that is taken.
    """
    from shoestring.serve.run import run

    run(source, host, port, name, ready, settings)
