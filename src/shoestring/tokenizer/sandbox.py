"""The program of the process that renders chat templates: Jinja in its sandbox, as Hugging Face's transformers sets it up.

A template comes with a checkpoint, from anybody, and is a program: it may loop for ever, make gigabytes, or find a way out of
Jinja's sandbox. So it runs here, in a process of its own with bounds that the operating system holds: seconds of computing,
memory, and no way to leave a file of any size. Requests and answers are JSON, one a line. Imports nothing of Shoestring's.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 2.0
"""Of computing, for one rendering; an ordinary one takes a thousandth of one."""
MEMORY = 1 << 30
"""Bytes of address space."""
LONGEST = 1 << 24
"""Characters of a rendering."""
BEGINS, ENDS = "generation_begins", "generation_ends"
"""Variables whose values a `{% generation %}` block writes before and after what it holds."""


class Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: what the model itself says."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The block's contents between two marks, in a scope of their own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begins, ends = (nodes.Output([nodes.Name(name, "load")]) for name in (BEGINS, ENDS))
        return [begins.set_lineno(line), nodes.Scope(body).set_lineno(line), ends.set_lineno(line)]


def serve() -> None:
    """Answer requests until there are no more; a rendering that goes beyond its bounds ends the process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(ValueError):  # macOS knows no such bound
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asked
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            request = json.loads(line)
            answer = render(request["source"], request["variables"], request["marks"])
        except Exception as error:  # a template may raise anything
            answer = {"error": (str(error) or type(error).__name__)[:1000]}
        reply = json.dumps(answer).encode()
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        sys.stdout.buffer.write(reply + b"\n")
        sys.stdout.buffer.flush()


def render(source: str, variables: Mapping[str, Any], marks: Sequence[str]) -> dict[str, Any]:
    """`text`: what a template makes of its variables; `marked`: whether it has `{% generation %}` blocks.

    Args:
        marks: what to write before and after what such a block holds.

    Raises:
        Exception: whatever Jinja or the template raises.
    """
    compiled, marked = _compiled(source)
    parts: list[str] = []
    size = 0
    for part in compiled.generate({**variables, BEGINS: marks[0], ENDS: marks[1]}):
        parts.append(part)
        size += len(part)
        if size > LONGEST:
            raise ValueError(f"it makes more than {LONGEST:,} characters")
    return {"text": "".join(parts), "marked": marked}


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
def _compiled(source: str) -> tuple[jinja2.Template, bool]:
    environment = _environment()
    names = environment.parse(source).find_all(nodes.Name)
    return environment.from_string(source), any(name.name == BEGINS for name in names)


if __name__ == "__main__":
    serve()
