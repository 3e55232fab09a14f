"""Chat templates: rendered as transformers renders them, and stopped when they raise, never end or want gigabytes."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from shoestring.errors import FileError
from shoestring.tokenizer import Tokenizer, renderer
from tests.tokenizer.kinds import KINDS

ASKED = [{"role": "user", "content": "Hi"}]
CONFIG = {
    "eos_token": "</s>",
    "bos_token": "<s>",
    "cls_token": "<unk>",
    "image_token": "<|im_end|>",
    "model_max_length": 8,
}


def made(template: Any) -> Tokenizer:
    return Tokenizer(KINDS["byte-level"], CONFIG | {"chat_template": template}, "folder/tokenizer.json")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x", "did not end in time"),
        ("{{ 'x' * 10 ** 10 }}", "MemoryError"),
        ("{{ 'x'.ljust(10 ** 10) }}", "MemoryError"),
        ("{{ [0] * 10 ** 10 }}", "MemoryError"),
        ("{% set n = namespace(s='xy') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}", "MemoryError"),
        ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "more than 16,777,216 characters"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "recursion"),
        ("{{ messages[0]['content'] + 1 }}", "can only concatenate str"),
        ("{{ messages[0].parts.first }}", "no attribute 'parts'"),
        ("{{ messages[7].content }}", "no element 7"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 10 ** 400 * 1.5 }}", "too large"),
        ("{{ {}.popitem() }}", "dictionary is empty|unsafe|not safely"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('only even turns') }}", "only even turns"),
        ("{{ raise_exception('two\nlines ' ~ 'x' * 5000) }}", "two lines"),
        ("{% for %}", "Expected an expression"),
        ("{% generation %}", "Unexpected end of template"),
        ("{{ 'x' | nofilter }}", "No filter named 'nofilter'"),
        ("{% include '/etc/passwd' %}", "no loader"),
        (7, "chat_template is 7; must be a text"),
        ([{"name": "tool_use", "template": "x"}], "none named 'default'"),
        ([{"name": "default", "template": 3}], "chat_template is 3"),
    ],
)
def test_whatever_a_template_does_is_one_line(template: Any, says: str) -> None:
    tokenizer = made(template)
    with pytest.raises(FileError, match=says) as caught:
        tokenizer.check_chat()
    assert str(caught.value).startswith("folder/tokenizer.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert made("{{ messages[0].content }}").chat(ASKED) == "Hi"  # and the next one renders


def test_messages_that_are_no_messages() -> None:
    for messages in (["Hi"], [7], [{"role": "user", "content": {1, 2}}], [{"role": "user", "content": 10**5000}]):
        with pytest.raises(FileError):
            made("{{ messages | tojson }}").chat(messages)  # type: ignore[arg-type]


def test_variables_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    template = (
        "{{ bos_token }}{{ cls_token }}{{ image_token }}{{ tools | tojson(indent=1) }}{{ documents }}{{ thinking }}"
        "{% for m in messages %}{{ m | tojson }}{{ m.reasoning_content }}{{ 'tool_calls' in m }}"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}"
        "{{ add_generation_prompt }}{{ strftime_now('%Y') }}\n  {% if true %}\n  x\n  {% endif %}\n{{ m is defined }}"
    )
    tokenizer = made(template)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [*ASKED, {"role": "assistant", "content": None, "tool_calls": None, "thinking": "<b>é</b>"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for given in ({}, {"tools": tools, "thinking": True, "documents": [{"title": "t", "text": "é"}]}):
        for opened in (True, False):
            expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened, **given)
            assert tokenizer.chat(messages, opened, **given) == expected


def test_the_template_for_tools_and_files_of_templates(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    made([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]).save(tmp_path)
    (tmp_path / "special").mkdir()
    made("of the configuration").save(tmp_path / "special")
    (tmp_path / "special" / "chat_template.jinja").write_text("of the file")
    (tmp_path / "special" / "additional_chat_templates").mkdir()
    for folder, default, other in ((tmp_path, "plain", "tools"), (tmp_path / "special", "of the file", "of the file")):
        theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.open(folder)
        for given in ({}, {"tools": []}, {"tools": [{"type": "function"}]}):
            expected = theirs.apply_chat_template(ASKED, tokenize=False, **given)
            assert ours.chat(ASKED, **given) == expected == (other if given else default)
    (tmp_path / "special" / "additional_chat_templates" / "tool_use.jinja").write_text("of the other file")
    assert Tokenizer.open(tmp_path / "special").chat(ASKED, tools=[]) == "of the other file"
    assert Tokenizer.open(tmp_path / "special").chat(ASKED) == "of the file"


def test_a_renderer_that_is_gone_is_started_again() -> None:
    tokenizer = made("{{ messages[0].content }}")
    assert tokenizer.chat(ASKED) == "Hi"
    process = renderer.RENDERER._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(FileError, match="ended with status -9"):
        tokenizer.chat(ASKED)
    assert tokenizer.chat(ASKED) == "Hi"


def test_threads_get_their_own_answers() -> None:
    tokenizer = made("{{ messages[0].content }}")
    wrong: list[str] = []

    def ask(name: str) -> None:
        wrong.extend(name for _ in range(40) if tokenizer.chat([{"role": "user", "content": name}]) != name)

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_process_that_was_forked_off_asks_its_own_renderer() -> None:
    tokenizer = made("{{ messages[0].content }}")
    assert tokenizer.chat(ASKED) == "Hi"
    child = os.fork()
    if child == 0:
        os._exit(0 if tokenizer.chat([{"role": "user", "content": "child"}]) == "child" else 1)
    assert tokenizer.chat(ASKED) == "Hi"
    assert os.waitpid(child, 0)[1] == 0
