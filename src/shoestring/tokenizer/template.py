"""Conversations as text: a chat template in Jinja, sandboxed, or a plain form for tokenizers without one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from shoestring.errors import FileError


def render(
    source: str, messages: Sequence[Mapping[str, str]], open_answer: bool, tokens: Mapping[str, str], where: str = "chat_template"
) -> str:
    """The conversation through a chat template as Hugging Face's tokenizers carry it.

    Raises:
        FileError: when the template is broken or refuses these messages; `where` names its file.
    """
    import jinja2

    try:
        return str(_compiled(source).render(messages=list(messages), add_generation_prompt=open_answer, **tokens))
    except jinja2.TemplateError as error:
        raise FileError(f"{where}: its chat template can't render these messages ({error})") from error


def plain(messages: Sequence[Mapping[str, str]], open_answer: bool, chatml: bool) -> str:
    """The conversation as ChatML, or as lines that begin with "User:", "Assistant:", "System:"."""
    if chatml:
        said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return said + ("<|im_start|>assistant\n" if open_answer else "")
    said = "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in messages)
    return said + ("Assistant:" if open_answer else "")


@lru_cache(maxsize=8)
def _compiled(source: str) -> Any:
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)
