"""A conversation: which turns stay, what stops an answer, and the keys of a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoestring.architecture import ModelConfig
from shoestring.cli.chat import Chat, Message, fitted
from shoestring.infer import Sampling
from shoestring.model import Transformer, save
from shoestring.tokenizer import Tokenizer


def _conversation(turns: int, system: bool) -> list[Message]:
    said = [{"role": "system", "content": "S"}] if system else []
    for turn in range(turns):
        said += [{"role": "user", "content": f"q{turn}"}, {"role": "assistant", "content": f"a{turn}"}]
    return [*said, {"role": "user", "content": "last"}]


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("room", [0, 1, 3, 4, 5, 8, 100])
def test_the_newest_whole_turns_stay_and_the_system_prompt(system: bool, room: int) -> None:
    messages = _conversation(4, system)
    kept = fitted(messages, len, room)
    first = int(system)
    assert kept[:first] == messages[:first]
    assert kept[first:] == messages[len(messages) - len(kept) + first :]
    assert kept[first]["role"] == "user"
    assert len(kept) <= max(room, first + 1)
    assert len(kept) == len(messages) or len(kept) + 2 > room


@pytest.fixture(scope="module")
def tiny() -> tuple[Transformer, Tokenizer]:
    tokenizer = Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)}, r"\s?\w+|\W", ["<|endoftext|>"])
    config = ModelConfig(vocabulary=tokenizer.vocabulary, width=32, layers=1, heads=2, context=64)
    return Transformer(config).initialise(0).eval(), tokenizer


def test_an_interrupted_answer_stays_in_the_conversation(tiny: tuple[Transformer, Tokenizer]) -> None:
    chat = Chat(*tiny, "Be kind.", Sampling(max_tokens=20))
    pieces: list[str] = []

    def show(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    text, tokens, note = chat.answer("Hi", show)
    assert note == "stopped"
    assert len(tokens) == 3
    assert chat.messages[-1] == {"role": "assistant", "content": text}
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant"]


def test_the_same_question_twice_is_not_answered_alike(tiny: tuple[Transformer, Tokenizer]) -> None:
    answers = []
    for asked in range(2):
        chat = Chat(*tiny, "", Sampling(max_tokens=20))
        chat.asked = asked
        answers.append(chat.answer("Hi", lambda piece: None)[1])
    assert answers[0] != answers[1]


def test_keys_on_a_terminal(tiny: tuple[Transformer, Tokenizer], tmp_path: Path) -> None:
    save(*tiny, tmp_path / "tiny")
    ours, theirs = pty.openpty()
    # First it makes the terminal its controlling one, so that Ctrl-C is a signal. Not by preexec_fn, which hangs among threads.
    first = (
        "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", first, "-m", "shoestring", "chat", "tiny", "--max-tokens", "4"]
    environment = {**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            _type(ours)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
            os.close(ours)


def _type(ours: int) -> None:
    """A question with a typing error, Ctrl-C twice, the question before once more, Ctrl-D."""
    _wait(ours, r"\n> $")
    os.write(ours, b"Ha\x7fi\n")
    _wait(ours, r"\n> $")
    for _ in range(2):
        os.write(ours, b"\x03")
        _wait(ours, r"Ctrl-D ends\)\n> $", again=b"\x03")
    os.write(ours, b"\x1b[A\n")
    _wait(ours, r"Hi.*\n> $")
    os.write(ours, b"\x04")


def _wait(terminal: int, pattern: str, seconds: float = 60.0, again: bytes = b"") -> None:
    """Read what the terminal shows until it fits the pattern.

    `again` is typed whenever nothing is shown for a while: readline does not notice a Ctrl-C that comes between its showing
    the prompt and its waiting for keys until the next one, and a test on a busy machine is quick enough to hit that moment.
    """
    seen, end = b"", time.monotonic() + seconds
    while not re.search(pattern, seen.decode(errors="replace").replace("\r\n", "\n"), re.DOTALL):
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 2.0)[0]:
            seen += os.read(terminal, 4096)
        else:
            os.write(terminal, again)
