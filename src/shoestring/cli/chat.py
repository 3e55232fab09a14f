"""A conversation on the terminal: streamed answers, as many turns as the context holds, keys that do what people expect."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING

from shoestring.cli.options import say

if TYPE_CHECKING:
    from shoestring.infer import Sampling
    from shoestring.model import Transformer
    from shoestring.tokenizer import Tokenizer

Message = dict[str, str]

STOPPED = "stopped"
"""The note behind an answer that was interrupted."""
SHARE = 4
"""An answer is left at least 1 / SHARE of the context, when it may be that long: turns are dropped before."""


def fitted(messages: Sequence[Message], length: Callable[[list[Message]], int], room: int) -> list[Message]:
    """The newest turns whose prompt takes at most `room` tokens, behind the system prompt; the last message always stays.

    Args:
        messages: a system prompt or none, then questions and answers in turn, a question last.
        length: tokens of the prompt that messages make.
    """
    first = 1 if messages[0]["role"] == "system" else 0
    system, turns = list(messages[:first]), list(messages[first:])
    while len(turns) > 2 and length([*system, *turns]) > room:
        turns = turns[2:]
    return [*system, *turns]


class Chat:
    """A conversation with a model: what was said, and how the next answer is made."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, system: str, sampling: Sampling) -> None:
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self.asked = 0

    def answer(self, question: str, show: Callable[[str], None]) -> tuple[str, list[int], str]:
        """Ask; give the answer, its tokens, and a note on what the context made necessary ("" for none).

        Args:
            show: given each piece of the answer as it is made. A KeyboardInterrupt ends the answer; what was made stays.
        """
        from shoestring.infer import generate, stop_tokens
        from shoestring.tokenizer import TextStream

        context = self.model.config.context
        asked = [*self.messages, {"role": "user", "content": question}]
        kept = fitted(asked, lambda some: len(self._prompt(some)), context - min(self.sampling.max_tokens, context // SHARE))
        prompt, dropped = self._prompt(kept), len(asked) - len(kept)
        room = context - len(prompt)
        if room < 1:
            return "", [], f"that makes {len(prompt):,} tokens, and the model's context has {context:,}: ask something shorter"
        note = f"the context of {context:,} tokens is full: dropped {dropped} of the oldest messages" if dropped else ""
        limit = min(self.sampling.max_tokens, room)
        sampling = self.sampling.model_copy(update={"max_tokens": limit, "seed": (self.sampling.seed or 0) + self.asked})
        self.asked += 1
        stream, tokens, ends = TextStream(self.tokenizer, prompt), list[int](), stop_tokens(self.tokenizer)

        def on_token(row: int, token: int) -> None:
            if token not in ends:
                tokens.append(token)
                show(stream.push(token))

        try:
            generate(self.model, [prompt], sampling, stop=ends, on_token=on_token)
        except KeyboardInterrupt:
            note = STOPPED
        show(stream.flush())
        if len(tokens) == limit and not note:
            note = f"cut off after {limit:,} tokens; --max-tokens allows more" if limit < room else "cut off: the context is full"
        text = self.tokenizer.answer(prompt, tokens).strip()
        self.messages = [*kept, {"role": "assistant", "content": text}]
        return text, tokens, note

    def _prompt(self, messages: list[Message]) -> list[int]:
        return self.tokenizer.chat_tokens(messages)


def converse(chat: Chat, json: bool) -> None:
    """Read questions from standard input and print the answers, until it ends (Ctrl-D)."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        ask = _from_pipe()
        while (question := ask()) is not None:
            if question and _turn(chat, question, json) == STOPPED:
                raise KeyboardInterrupt  # who pipes questions in means the program
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # here Ctrl-C stops an answer, not the program
    print("Ctrl-C stops an answer, Ctrl-D ends.", file=sys.stderr)
    try:
        ask, interrupted = _from_terminal(), False
        while True:
            try:
                if interrupted:
                    print("\n(Ctrl-D ends)", file=sys.stderr)
                interrupted = False
                question = ask()
                if question is None:
                    return
                if question:
                    _turn(chat, question, json)
            except KeyboardInterrupt:
                interrupted = True
    finally:
        signal.signal(signal.SIGINT, before)


def _turn(chat: Chat, question: str, json: bool) -> str:
    """Print the answer to a question; give the note that stands behind it."""
    begun = False

    def show(piece: str) -> None:
        nonlocal begun
        piece = piece if begun else piece.lstrip()
        begun = begun or bool(piece)
        print(piece, end="", flush=True)

    text, tokens, note = chat.answer(question, (lambda piece: None) if json else show)
    if json:
        say(True, {"question": question, "answer": text, "tokens": len(tokens), "note": note}, "")
    else:
        print()
    if note:
        print(f"({note})", file=sys.stderr)
    return note


def _from_pipe() -> Callable[[], str | None]:
    """How a question is read from a pipe or a file; None at the end."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")

    def ask() -> str | None:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        return line.strip() if line else None

    return ask


def _from_terminal() -> Callable[[], str | None]:
    """How a question is read on a terminal, with line editing and history; None at the end."""
    try:
        import readline  # noqa: F401  (input() edits lines and keeps a history once it is there)
    except ImportError:
        pass

    def ask() -> str | None:
        try:
            return input("> ").strip()
        except EOFError:
            print()
            return None

    return ask
