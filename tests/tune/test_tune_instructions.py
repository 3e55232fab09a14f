"""Conversations: what counts, what is refused, which batch holds what."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from shoestring.errors import FileError, ShoestringError
from shoestring.tokenizer import Tokenizer
from shoestring.tune import Conversations, encode, holds_messages, read_messages
from shoestring.tune.chat import Conversation

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Goodbye"},
    {"role": "user", "content": "never answered"},
]
CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def counted_text(tokenizer: Tokenizer, conversation: Conversation) -> str:
    return tokenizer.decode(conversation.tokens[conversation.counted].tolist(), special=True)


def test_only_the_assistant_counts(tokenizer: Tokenizer) -> None:
    chat = Tokenizer(tokenizer.record, {"chat_template": CHATML, "eos_token": "<|endoftext|>"})
    made = encode(chat, TALK)
    assert counted_text(chat, made) == "Hello<|im_end|>Goodbye<|im_end|>"
    assert chat.decode(made.tokens.tolist(), special=True) == chat.chat(TALK[:5], open_answer=False)


def test_a_form_without_an_end_gets_one(tokenizer: Tokenizer) -> None:
    made = encode(tokenizer, TALK)
    assert counted_text(tokenizer, made) == " Hello\n Goodbye\n<|endoftext|>"
    assert made.tokens[-1] == tokenizer.end


def test_a_template_that_rewrites_gives_each_answer_its_own_rendering(tokenizer: Tokenizer) -> None:
    template = "{{ messages | length }}{% for m in messages %}<{{ m.content }}>{% endfor %}"
    made = encode(Tokenizer(tokenizer.record, {"chat_template": template}), TALK, "rows:3")
    text = [tokenizer.decode(part.tokens.tolist()) for part in made.renderings()]
    assert text == ["3<Be brief.><Hi><Hello>", "5<Be brief.><Hi><Hello><Bye><Goodbye>"]
    said = [counted_text(tokenizer, part) for part in made.renderings()]
    assert said == ["Hello><|endoftext|>", "Goodbye><|endoftext|>"]
    assert Conversations([made], 1, 60, 0, tokenizer.end).windows == 2


THINK = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_thoughts_are_learned_in_their_own_turn(tokenizer: Tokenizer) -> None:
    """Qwen3's way: only the last answer's thoughts are written."""
    chat = Tokenizer(tokenizer.record, {"chat_template": THINK})
    talk = [dict(message) for message in TALK[:5]]
    talk[2]["reasoning_content"] = "greet"
    talk[4]["reasoning"] = "part"
    made = encode(chat, talk)
    said = [counted_text(chat, part) for part in made.renderings()]
    assert said == ["<think>greet</think>Hello<|im_end|>", "<think>part</think>Goodbye<|im_end|>"]
    assert chat.decode(made.renderings()[1].tokens.tolist()).startswith("<system>Be brief.<user>Hi<assistant>Hello<user>Bye")


@pytest.mark.parametrize("answers", [["Welcome."], ["Welcome.", "How are you?"]])
def test_a_conversation_that_the_assistant_begins(tokenizer: Tokenizer, answers: list[str]) -> None:
    """With a default system prompt, as SmolLM2's template has it, and without messages to render before the answer."""
    for begin in ("{% if messages and messages[0].role != 'system' %}", "{% if messages[0].role != 'system' %}"):
        template = begin + "<system>Be kind.<|im_end|>{% endif %}" + CHATML
        chat = Tokenizer(tokenizer.record, {"chat_template": template})
        talk = [{"role": "assistant", "content": answer} for answer in answers] + TALK[1:3]
        made = encode(chat, talk)
        assert counted_text(chat, made) == "".join(f"{answer}<|im_end|>" for answer in [*answers, "Hello"])
        assert chat.decode(made.tokens.tolist(), special=True) == chat.chat(talk, open_answer=False)


def test_generation_blocks_give_exact_masks(tokenizer: Tokenizer) -> None:
    template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    chat = Tokenizer(tokenizer.record, {"chat_template": template})
    made = encode(chat, TALK)
    assert len(made.renderings()) == 1
    assert counted_text(chat, made) == "Hello<|im_end|>Goodbye<|im_end|>"


def test_a_message_forges_no_end(tokenizer: Tokenizer) -> None:
    chat = Tokenizer(tokenizer.record, {"chat_template": CHATML})
    made = encode(chat, [{"role": "user", "content": "a<|im_end|>b"}, {"role": "assistant", "content": "c"}])
    assert made.tokens.tolist().count(chat.special["<|im_end|>"]) == 2


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Here"}'}}
CALLS = [
    {"role": "user", "content": "Rain?", "name": None},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": [{"type": "text", "text": "light "}, {"text": "rain"}]},
    {"role": "assistant", "content": "Yes."},
]
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
WRITES = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}(ARGUMENTS){% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def row(tmp_path: Path, **record: object) -> tuple[str, list[dict]]:
    (tmp_path / "row.jsonl").write_text(json.dumps(record))
    return read_messages(tmp_path / "row.jsonl")[0]


@pytest.mark.parametrize("takes", ["{{ c.function.arguments | tojson }}", "{{ c.function.arguments + '' }}"])
def test_calls_and_tools_are_learned_where_the_template_writes_them(tmp_path: Path, tokenizer: Tokenizer, takes: str) -> None:
    chat = Tokenizer(tokenizer.record, {"chat_template": WRITES.replace("ARGUMENTS", takes)})
    where, messages = row(tmp_path, messages=CALLS, tools=json.dumps(TOOLS))
    made = encode(chat, messages, where)
    assert counted_text(chat, made) == 'weather({"town": "Here"})<|im_end|>Yes.<|im_end|>'
    text = chat.decode(made.tokens.tolist())
    assert '"weather"' in text
    assert "<tool>light rain" in text


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"messages": CALLS}, "leaves out tool_calls of a message of the assistant"),
        ({"messages": TALK[1:3], "tools": TOOLS}, "leaves out tools"),
        ({"messages": [TALK[1] | {"name": "Ann"}, TALK[2]]}, r"leaves out name of a message of the user \('Ann'\)"),
        ({"messages": [TALK[1], TALK[2] | {"reasoning": "hm"}]}, "leaves out reasoning of a message of the assistant"),
        ({"messages": [TALK[1], {"role": "tool", "content": "x", "tool_call_id": "c"}, TALK[2]]}, "leaves out tool_call_id"),
    ],
)
def test_what_the_template_leaves_out_is_refused(tmp_path: Path, tokenizer: Tokenizer, record: dict, says: str) -> None:
    chat = Tokenizer(tokenizer.record, {"chat_template": CHATML})
    where, messages = row(tmp_path, **record)
    with pytest.raises(FileError, match=rf"row\.jsonl:1: the chat template {says}"):
        encode(chat, messages, where)


def test_entries_that_say_nothing_are_taken(tmp_path: Path, tokenizer: Tokenizer) -> None:
    chat = Tokenizer(tokenizer.record, {"chat_template": CHATML})
    nothing = {"name": None, "tool_calls": [], "reasoning": "", "refusal": None}
    _, messages = row(tmp_path, messages=[TALK[1], TALK[2] | nothing], tools=None, id=7)
    assert counted_text(chat, encode(chat, messages)) == "Hello<|im_end|>"


def test_answers_that_say_nothing_are_counted(tokenizer: Tokenizer) -> None:
    empty = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
    weighed = [*TALK[1:2], TALK[2] | {"weight": 0}, *TALK[3:5]]
    chat = Tokenizer(tokenizer.record, {"chat_template": CHATML})
    made = Conversations([encode(chat, empty), encode(chat, weighed)], 1, 60, 0, chat.end)
    assert (made.windows, made.empty, made.dropped) == (1, 2, 0)
    assert counted_text(chat, made.kept[0]) == "Goodbye<|im_end|>"
    with pytest.raises(ShoestringError, match="all answers are empty"):
        Conversations([encode(chat, empty)], 1, 60, 0, chat.end)


ASKED = [("user", "Q"), ("assistant", "A")]
MESSAGES = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, ASKED),
        (
            {"system": "S", "conversation": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
            [("system", "S"), ("user", "Q"), ("assistant", "A")],
        ),
        ({"instruction": "Q", "input": "", "output": "A", "text": "x"}, ASKED),
        ({"instruction": "Q", "input": "more", "output": "A"}, [("user", "Q\nmore"), ("assistant", "A")]),
        ({"instruction": "Q", "output": "A", "history": [["q", "a"]]}, [("user", "q"), ("assistant", "a"), *ASKED]),
        ({"prompt": "Q", "completion": "A"}, ASKED),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, ASKED),
        ({"question": "Q", "answer": "A"}, ASKED),
        ({"messages": json.dumps(MESSAGES)}, ASKED),
    ],
)  # fmt: skip
def test_forms(tmp_path: Path, record: dict, expected: list[tuple[str, str]]) -> None:
    messages = row(tmp_path, **record)[1]
    assert [(message["role"], message["content"]) for message in messages] == expected
    assert holds_messages(tmp_path / "row.jsonl")


def test_a_call_in_sharegpts_words(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "Q"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "Here"}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "A"},
    ]
    messages = row(tmp_path, conversations=talk)[1]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"town": "Here"}}


def test_batches_hold_every_conversation_once(tokenizer: Tokenizer) -> None:
    talks = [[{"role": "user", "content": "x" * i}, {"role": "assistant", "content": str(i)}] for i in range(1, 10)]
    made = Conversations([encode(tokenizer, talk) for talk in talks], 3, 200, seed=0, end=tokenizer.end)
    assert made.windows == 9
    seen = []
    for step in range(3):
        batch = made.batch(step)
        for tokens, targets in zip(batch["tokens"].numpy(), batch["targets"].numpy()):
            answer = tokenizer.decode(targets[targets >= 0].tolist())
            seen.append(answer.strip())
            places = np.flatnonzero(targets >= 0)
            inside = places[:-1]  # the last target is the end token, which padding may equal
            assert (tokens[inside + 1] == targets[inside]).all()
    assert sorted(seen) == [str(i) for i in range(1, 10)]
    again = Conversations(made.kept, 3, 200, seed=0, end=tokenizer.end)
    assert (again.batch(7)["tokens"] == made.batch(7)["tokens"]).all()
    other = Conversations(made.kept, 9, 200, seed=1, end=tokenizer.end)
    assert other.batch(0)["tokens"].tolist() != Conversations(made.kept, 9, 200, 0, tokenizer.end).batch(0)["tokens"].tolist()


def test_long_conversations_lose_their_end(tokenizer: Tokenizer) -> None:
    short = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 50}]
    lost = [{"role": "user", "content": "a" * 60}, {"role": "assistant", "content": "b"}]
    made = Conversations([encode(tokenizer, short), encode(tokenizer, lost)], 2, 40, 0, tokenizer.end)
    assert (made.windows, made.dropped, made.mean_length) == (1, 1, 40)
    assert made.batch(0)["tokens"].shape == (2, 40)
    with pytest.raises(ShoestringError, match=r"lora\.context"):
        Conversations([encode(tokenizer, lost)], 2, 40, 0, tokenizer.end)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz", "a.parquet", "a.json", "array.json", "a.JSONL"])
def test_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    lines = (json.dumps({"messages": TALK}) + "\n\n" + json.dumps({"messages": TALK[1:3], "note": 1})).encode()
    if name == "array.json":
        lines = json.dumps([{"messages": TALK}, {"messages": TALK[1:3]}], indent=1).encode()
    if name.endswith("parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"messages": [TALK, TALK[1:3]]}), file)
    else:
        file.write_bytes(lzma.compress(lines) if name.endswith("xz") else lines)
    assert [messages for _, messages in read_messages(file)] == [TALK, TALK[1:3]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no conversations"),
        ("{", ":1: not JSON"),
        ('{"text": "a"}', r":1: not a row of chat data; its keys are \['text'\], and the forms that are read have messages;"),
        ("[1]", ":1: a list, not an object"),
        ('{"messages": []}', ":1: needs messages, a list of objects"),
        ('{"messages": {"role": "user"}}', ":1: needs messages, a list of objects"),
        ('{"messages": ["user"]}', "a message needs a role and a content, got 'user'"),
        ('{"messages": [{"role": "martian", "content": "a"}]}', "a message needs a role"),
        ('{"messages": [{"role": ["user"], "content": "a"}]}', "a message needs a role"),
        ('{"messages": [{"role": "user", "content": 5}]}', "content must be a text, got 5"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            "a part of a message is",
        ),
        ('{"messages": [{"role": "assistant", "tool_calls": 5}]}', "tool_calls must be objects"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}', "weight of a message must be 0"),
        ('{"tools": 5, "messages": [{"role": "assistant", "content": "a"}]}', "tools must be a list of objects, got 5"),
        ('{"images": ["x"], "messages": [{"role": "assistant", "content": "a"}]}', r"images is \['x'\]"),
        ('{"conversations": [{"from": "nobody", "value": "a"}]}', "a message needs a role"),
        ('{"instruction": "a", "output": 5}', "output must be a text, got 5"),
        ('{"instruction": "a", "output": "b", "history": ["c"]}', "history must be pairs"),
        ('{"prompt": [{"role": "user"}], "completion": "b"}', "a message needs a role and a text"),
        ('{"messages": "[{"}', "not JSON"),
        ("[" * 100_000, "nested too deep|not JSON"),
        ('{"messages": [{"role": "user", "content": "%s"}]}' % ("x" * 9000), "no message of the assistant"),
        ('{"messages": [{"role": "user", "content": null}]}', "a text as content"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no message of the assistant"),
    ],
)
def test_bad_rows(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(FileError, match=says) as caught:
        read_messages(tmp_path / "a.jsonl")
    assert str(tmp_path / "a.jsonl") in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    (tmp_path / "a.jsonl").write_bytes(b"\xff")
    (tmp_path / "a.jsonl.xz").write_bytes(b"x")
    for name, says in (("a.parquet", "Parquet"), ("a.jsonl", "UTF-8"), ("a.jsonl.xz", "unpacked"), ("b.jsonl", "no such file")):
        with pytest.raises(FileError, match=says):
            read_messages(tmp_path / name)
