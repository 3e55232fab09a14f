"""Conversations as text: a chat template in Jinja, sandboxed, or a plain form for tokenizers without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from shoestring.errors import FileError, shown

Message = Mapping[str, Any]
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which a message's reasoning is passed; the first is the one that templates read."""


def render(
    source: str,
    messages: Sequence[Message],
    open_answer: bool,
    variables: Mapping[str, Any],
    marks: tuple[str, str] = ("", ""),
    where: str = "chat_template",
) -> str:
    """The conversation through a chat template as Hugging Face's tokenizers carry it.

    As transformers does: entries that are None are left out, and reasoning goes by either of its names.

    Args:
        variables: what else the template may read: `tools`, `documents`, special tokens by name, settings of its own.
        marks: what stands before and after what `{% generation %}` blocks hold.

    Raises:
        FileError: when the template is broken or refuses these messages; `where` names its file.
    """
    from shoestring.tokenizer import sandbox

    given = {"tools": None, "documents": None} | dict(variables)
    given |= {"messages": [_as_read(message) for message in messages], "add_generation_prompt": open_answer}
    given |= {sandbox.BEGINS: marks[0], sandbox.ENDS: marks[1]}
    try:
        return sandbox.render(source, given)
    except Exception as error:  # a template is a program: it may raise anything
        raise _failed(error, where) from error


@lru_cache(maxsize=8)
def marks_answers(source: str, where: str = "chat_template") -> bool:
    """Whether a template says what the assistant says, by `{% generation %}` blocks.

    Raises:
        FileError: when it is broken.
    """
    from shoestring.tokenizer import sandbox

    try:
        return sandbox.marks_generation(source)
    except Exception as error:
        raise _failed(error, where) from error


def _failed(error: Exception, where: str) -> FileError:
    what = shown(str(error), quote=False) or type(error).__name__
    return FileError(f"{where}: its chat template can't render these messages ({what})")


def plain(messages: Sequence[Message], open_answer: bool, chatml: bool) -> str:
    """The conversation as ChatML, or as lines that begin with "User:", "Assistant:", "System:"."""
    turns = [(str(message.get("role", "")), spoken(message.get("content"))) for message in messages]
    if chatml:
        said = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
        return said + ("<|im_start|>assistant\n" if open_answer else "")
    said = "".join(f"{role.capitalize()}: {content}\n" for role, content in turns)
    return said + ("Assistant:" if open_answer else "")


def spoken(content: Any) -> str:
    """The text of a message's content: itself, or that of its parts."""
    if isinstance(content, str) or content is None:
        return content or ""
    parts = content if isinstance(content, (list, tuple)) else [content]
    return "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in parts)


def _as_read(message: Message) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[key] for key in _REASONING if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}
