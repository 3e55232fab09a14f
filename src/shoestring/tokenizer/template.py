"""Conversations as text: a chat template in Jinja, or a plain form for tokenizers without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shoestring.errors import FileError, shown
from shoestring.tokenizer import renderer

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
) -> tuple[str, bool]:
    """The conversation through a chat template, and whether that has `{% generation %}` blocks.

    As transformers does: entries that are None are left out, and reasoning goes by either of its names.

    Args:
        variables: what else the template may read: `tools`, `documents`, special tokens by name, settings of its own.
        marks: what stands before and after what `{% generation %}` blocks hold.

    Raises:
        FileError: when the template is broken or refuses these messages; `where` names its file.
    """
    given = {"tools": None, "documents": None} | dict(variables)
    given |= {"messages": [_as_read(message, where) for message in messages], "add_generation_prompt": open_answer}
    try:
        return renderer.RENDERER.render(source, given, marks)
    except renderer.Refused as error:
        raise FileError(f"{where}: its chat template can't render these messages ({error})") from error


def chosen(templates: Any, tools: Any, where: str) -> str | None:
    """The chat template; of several with names the one for tools where there are any, else the default one.

    Raises:
        FileError: several without a default one, or no text.
    """
    if isinstance(templates, list):
        templates = {one.get("name"): one.get("template") for one in templates if isinstance(one, dict)}
    if isinstance(templates, dict):
        named = "tool_use" if tools is not None and "tool_use" in templates else "default"
        if named not in templates:
            there = ", ".join(shown(name, 40) for name in templates)
            raise FileError(f"{where}: has chat templates ({there}) but none named 'default'; name one so")
        templates = templates[named]
    if templates is not None and not isinstance(templates, str):
        raise FileError(
            f"{where}: chat_template is {shown(templates)}; must be a text, or a list of objects with name and template"
        )
    return templates or None


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


def _as_read(message: Message, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise FileError(f"{where}: a message is {shown(message)}; must be an object with role and content")
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[key] for key in _REASONING if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}
