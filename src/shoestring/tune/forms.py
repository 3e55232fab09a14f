"""Rows of chat data in the forms that are in use, as messages: one table says which keys a form has and how it is read.

Whatever a form can't express is refused with the row's place, the key and its value; keys that a row has beside its form's
(`id`, `source`, ...) say nothing to a model and are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from shoestring.errors import FileError, ShoestringError, shown
from shoestring.files import parse_json

Record = Mapping[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")
SPEAKERS = {
    **{role: role for role in ROLES},
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""Who speaks, in ShareGPT's words and in those of messages."""
UNREADABLE = ("images", "image", "audio", "audios", "videos", "video")
"""Keys of a row with content that no model here reads."""
GIVEN = ("tools", "documents")
"""Keys of a row that a chat template may read."""


class Messages(list[dict[str, Any]]):
    """The messages of a row, and what else of it a chat template reads."""

    def __init__(self, messages: list[dict[str, Any]], given: Mapping[str, Any] | None = None) -> None:
        super().__init__(messages)
        self.given = dict(given or {})


def form_of(record: Any) -> str | None:
    """The name of the form that a row has; None for none."""
    if not isinstance(record, Mapping):
        return None
    return next((name for name, (keys, _) in FORMS.items() if all(record.get(key) is not None for key in keys)), None)


def accepted() -> str:
    """The forms, as a message names them."""
    return "; ".join(" with ".join(keys) for keys, _ in FORMS.values())


def read_row(record: Any, where: str) -> Messages:
    """The messages of one row.

    Raises:
        FileError: no known form, or something in it that is none: what and where.
    """
    form = form_of(record)
    if form is None:
        keys = f"its keys are {shown(list(record))}" if isinstance(record, Mapping) else f"it is {shown(record)}"
        raise FileError(f"{where}: not a row of chat data; {keys}, and the forms that are read have {accepted()}")
    for key in UNREADABLE:
        if record.get(key):
            raise FileError(f"{where}: {key} is {shown(record[key])}; only text is learned: remove the row")
    given = {key: value for key in GIVEN if (value := _parsed(record.get(key), where))}
    for key, value in given.items():
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise FileError(f"{where}: {key} must be a list of objects, got {shown(value)}")
    settings = record.get("chat_template_kwargs")
    if settings is not None and not isinstance(settings, dict):
        raise FileError(f"{where}: chat_template_kwargs must be an object, got {shown(settings)}")
    messages = FORMS[form][1](record, where)
    system = record.get("system")
    if system and messages[0]["role"] not in ("system", "developer"):
        messages = [{"role": "system", "content": _text(system, "system", where)}, *messages]
    if not any(message["role"] == "assistant" for message in messages):
        raise FileError(f"{where}: no message of the assistant, so nothing to learn; add one or remove the row")
    return Messages(messages, {**given, **(settings or {})})


# ------------------------------------------------------------ the forms


def _messages(record: Record, where: str) -> list[dict[str, Any]]:
    return _list(record["messages"], "messages", where)


def _sharegpt(record: Record, where: str) -> list[dict[str, Any]]:
    key = "conversations" if "conversations" in record else "conversation"
    return _list(record[key], key, where)


def _pair(question: str, answer: str) -> Callable[[Record, str], list[dict[str, Any]]]:
    def read(record: Record, where: str) -> list[dict[str, Any]]:
        prompt, response = record[question], record[answer]
        if isinstance(prompt, list) or isinstance(response, list):  # messages on both sides
            return [*_list(prompt, question, where), *_list(response, answer, where)]
        text, more = _text(prompt, question, where), record.get("input") or ""
        text = f"{text}\n{_text(more, 'input', where)}" if question == "instruction" and more else text
        return [*_history(record, where), {"role": "user", "content": text}, _answer(_text(response, answer, where))]

    return read


FORMS: dict[str, tuple[tuple[str, ...], Callable[[Record, str], list[dict[str, Any]]]]] = {
    "messages": (("messages",), _messages),
    "ShareGPT": (("conversations",), _sharegpt),
    "ShareGPT, one": (("conversation",), _sharegpt),
    "Alpaca": (("instruction", "output"), _pair("instruction", "output")),
    "Alpaca, response": (("instruction", "response"), _pair("instruction", "response")),
    "prompt": (("prompt", "completion"), _pair("prompt", "completion")),
    "prompt, response": (("prompt", "response"), _pair("prompt", "response")),
    "question": (("question", "answer"), _pair("question", "answer")),
}
"""Each form: the keys that tell it, in order of preference, and what makes messages of a row."""


def _history(record: Record, where: str) -> Iterator[dict[str, Any]]:
    """Earlier turns of an Alpaca row, pairs of texts."""
    turns = record.get("history") or []
    for turn in turns if isinstance(turns, list) else [turns]:
        if not isinstance(turn, list) or len(turn) != 2:
            raise FileError(f"{where}: history must be pairs of a question and an answer, got {shown(turns)}")
        yield {"role": "user", "content": _text(turn[0], "history", where)}
        yield _answer(_text(turn[1], "history", where))


def _answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _list(messages: Any, key: str, where: str) -> list[dict[str, Any]]:
    messages = _parsed(messages, where)
    if not isinstance(messages, list) or not messages:
        raise FileError(
            f"{where}: needs {key}, a list of objects with role and content (or from and value), got {shown(messages)}"
        )
    return [_message(message, where) for message in messages]


def _message(message: Any, where: str) -> dict[str, Any]:
    """One message: role, content, and what else it says; entries that are null are left out."""
    if not isinstance(message, Mapping):
        raise FileError(f"{where}: a message needs a role and a content, got {shown(message)}")
    found = {key: value for key, value in message.items() if value is not None}
    speaker = found.pop("from", None) if "role" not in found else found.pop("role")
    content = found.pop("value", None) if "content" not in found else found.pop("content")
    if speaker == "function_call":
        call = _parsed(content, where)
        speaker, content, found["tool_calls"] = "assistant", None, call if isinstance(call, list) else [call]
    role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise FileError(f"{where}: a message needs a role ({', '.join(ROLES)}) and a text as content, got {shown(dict(message))}")
    if found.get("tool_calls"):
        found["tool_calls"] = _calls(found["tool_calls"], where)
    if content is None and not found.get("tool_calls"):
        raise FileError(f"{where}: a message needs a role and a text as content, got {shown(dict(message))}")
    if found.get("weight", 1) not in (0, 1):
        raise FileError(f"{where}: the weight of a message must be 0 (not learned) or 1, got {shown(found['weight'])}")
    spoken = {} if content is None else {"content": _content(content, where)}
    return {
        "role": role,
        **spoken,
        **{key: value for key, value in found.items() if not (value is False or value in ("", [], {}))},
    }


def _content(content: Any, where: str) -> str:
    """A text, or the texts of a list of parts, joined."""
    if not isinstance(content, list):
        return _text(content, "content", where)
    for part in content:
        if not isinstance(part, Mapping) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            raise FileError(f"{where}: a part of a message is {shown(part)}; only parts of type text are learned")
    return "".join(part["text"] for part in content)


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
    """Calls of tools as transformers wants them, arguments as a mapping."""
    calls = _parsed(calls, where)
    found = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise FileError(f"{where}: tool_calls must be objects with a function's name and arguments, got {shown(calls)}")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = parse_json(arguments, where)
            except ShoestringError:
                arguments = function["arguments"]  # not JSON: as it is
        inner = {**function, "arguments": {} if arguments is None else arguments}
        outer = {key: value for key, value in call.items() if value is not None} if "function" in call else {}
        found.append({"type": "function", **outer, "function": inner})
    return found


def _parsed(value: Any, where: str) -> Any:
    """A list or an object, also where it is written as a JSON text, as tables keep it."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        return parse_json(value, where, "mend or remove the row")
    return value


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise FileError(f"{where}: {key} must be a text, got {shown(value)}")
    return value
