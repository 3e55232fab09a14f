"""Chat templates rendered as Hugging Face's transformers renders them: Jinja in its sandbox, with the same variables and filters.

A template comes with a checkpoint, from anybody. Imports nothing of Shoestring's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

BEGINS, ENDS = "generation_begins", "generation_ends"
"""Variables that a `{% generation %}` block writes before and after what it holds."""


class Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: what the model itself says."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The block's contents between two marks, in a scope of their own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begins, ends = (nodes.Output([nodes.Name(name, "load")]) for name in (BEGINS, ENDS))
        return [begins.set_lineno(line), nodes.Scope(body).set_lineno(line), ends.set_lineno(line)]


def render(source: str, variables: Mapping[str, Any]) -> str:
    """The text that a template makes of its variables.

    Raises:
        Exception: whatever Jinja or the template raises.
    """
    return str(_compiled(source).render(**variables))


def marks_generation(source: str) -> bool:
    """Whether a template says what the model itself says.

    Raises:
        jinja2.TemplateError: it is broken.
    """
    names = _environment().parse(source).find_all(nodes.Name)
    return any(name.name == BEGINS for name in names)


def _environment() -> ImmutableSandboxedEnvironment:
    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


@lru_cache(maxsize=8)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)
