"""Conversations: what counts, what is refused, which batch holds what."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from shoestring.errors import FileError, ShoestringError
from shoestring.tokenizer import Tokenizer
from shoestring.tune import Conversations, encode, read_messages
from shoestring.tune.instructions import Conversation

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


def test_a_template_that_rewrites_is_refused(tokenizer: Tokenizer) -> None:
    template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    chat = Tokenizer(tokenizer.record, {"chat_template": template})
    with pytest.raises(FileError, match=r"rows:3: the chat template rewrites"):
        encode(chat, TALK, "rows:3")


def test_batches_hold_every_conversation_once(tokenizer: Tokenizer) -> None:
    talks = [[{"role": "user", "content": "x" * i}, {"role": "assistant", "content": str(i)}] for i in range(1, 10)]
    made = Conversations([encode(tokenizer, talk) for talk in talks], 3, 200, seed=0, end=tokenizer.end)
    assert made.windows == 9
    seen = []
    for step in range(3):
        batch = made.batch(step)
        for tokens, targets in zip(batch.tokens_BT.numpy(), batch.targets_BT.numpy()):
            answer = tokenizer.decode(targets[targets >= 0].tolist())
            seen.append(answer.strip())
            places = np.flatnonzero(targets >= 0)
            inside = places[:-1]  # the last target is the end token, which padding may equal
            assert (tokens[inside + 1] == targets[inside]).all()
    assert sorted(seen) == [str(i) for i in range(1, 10)]
    again = Conversations(made.kept, 3, 200, seed=0, end=tokenizer.end)
    assert (again.batch(7).tokens_BT == made.batch(7).tokens_BT).all()
    other = Conversations(made.kept, 9, 200, seed=1, end=tokenizer.end)
    assert other.batch(0).tokens_BT.tolist() != Conversations(made.kept, 9, 200, 0, tokenizer.end).batch(0).tokens_BT.tolist()


def test_long_conversations_lose_their_end(tokenizer: Tokenizer) -> None:
    short = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 50}]
    lost = [{"role": "user", "content": "a" * 60}, {"role": "assistant", "content": "b"}]
    made = Conversations([encode(tokenizer, short), encode(tokenizer, lost)], 2, 40, 0, tokenizer.end)
    assert (made.windows, made.dropped, made.mean_length) == (1, 1, 40)
    assert made.batch(0).tokens_BT.shape == (2, 40)
    with pytest.raises(ShoestringError, match=r"lora\.context"):
        Conversations([encode(tokenizer, lost)], 2, 40, 0, tokenizer.end)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz", "a.parquet"])
def test_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    lines = (json.dumps({"messages": TALK}) + "\n\n" + json.dumps({"messages": TALK[1:3], "note": 1})).encode()
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
        ('{"text": "a"}', ":1: needs `messages`"),
        ('{"messages": []}', ":1: needs `messages`"),
        ('{"messages": [{"role": "human", "content": "a"}]}', "a message needs a role"),
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
