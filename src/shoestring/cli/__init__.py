"""The command line: one command per room. Typed functions with docstrings become commands.

Every command takes `--json` (one JSON object on standard output, everything else on standard error) and ends 0 on success,
2 on a user's mistake (one line, no traceback), 1 on our own fault, 130 and 143 when Ctrl-C or SIGTERM stopped it. Rooms are
imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Annotated

import typer

from shoestring import __version__
from shoestring.cli.answers import chat, generate, serve
from shoestring.cli.models import compress, data, evaluate, fetch, tune
from shoestring.cli.plans import calibrate, plan_app
from shoestring.cli.runs import compose, report, run, techniques, train
from shoestring.errors import SettingError, ShoestringError, file_error, shown

app = typer.Typer(
    name="shoestring",
    no_args_is_help=True,
    epilog="shoestring --install-completion lets the shell complete commands and options.",
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        versions = {name: metadata.version(name) for name in ("torch", "daft")}
        about = ", ".join([f"Python {platform.python_version()}", *(f"{name} {version}" for name, version in versions.items())])
        print(f"shoestring {__version__} ({about})")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    """Build, adapt, shrink and serve language models within a budget, and see what every step cost."""


for command in (run, train, data, tune, compress, evaluate, generate, chat, serve, compose, report, techniques, calibrate, fetch):
    app.command()(command)
app.add_typer(plan_app, name="plan")


GOES_ON = ("run", "train", "tune", "compress", "compose")
"""Commands that go on where they stopped when they are given again."""


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and status 2, Ctrl-C in 130, SIGTERM in 143."""
    with _stoppable() as received:
        try:
            status = _run()
        except BaseException:  # a library may have made its own error of the interrupt
            if not received:
                raise
        if received:
            goes_on = sys.argv[1:2] and sys.argv[1] in GOES_ON
            print("stopped; the same command goes on where it stopped" if goes_on else "stopped", file=sys.stderr)
            status = 128 + received[0]
    sys.exit(status)


def _run() -> int:
    """Run a command and give its status."""
    try:
        _refuse_bytes(sys.argv[1:])
        # Typer gives back the status of an Exit, and what a command returns: nothing.
        return int(app(prog_name="shoestring", standalone_mode=False) or 0)
    except ShoestringError as error:
        return _fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os._exit(0)
        if error.filename is None:
            raise
        return _fail(str(file_error(error.filename, error)))
    except typer.Abort:  # standard input ended in the middle of a question
        return 130
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _fail(error.format_message())


def _refuse_bytes(words: list[str]) -> None:
    """Refuse words that are not UTF-8: neither the libraries below nor JSON take such a file name or text.

    Raises:
        SettingError: names the first one.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise SettingError(f"{shown(word)}: is not UTF-8; rename the file, or convert the text") from error


def _fail(message: str) -> int:
    if message:  # empty when only the help was asked for
        print(f"shoestring: {message}", file=sys.stderr)
    return 2


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Make SIGTERM an interrupt as Ctrl-C is: what is half made goes, restart points stay. A second signal ends at once.

    The list that is given holds the signals received. One that is ignored when we begin (`nohup`) stays ignored.
    """
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number in caught:
            signal.signal(number, before[number])
