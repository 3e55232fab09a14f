"""The command line: one command per room. Typed functions with docstrings become commands.

Every command takes `--json` (one JSON object on standard output, everything else on standard error) and ends 0 on success,
2 on a user's mistake (one line, no traceback), 1 on our own fault. Rooms are imported inside the commands, so that
`--help` answers at once.
"""

from __future__ import annotations

import os
import platform
import sys
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


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and status 2."""
    try:
        _refuse_bytes(sys.argv[1:])
        sys.exit(int(app(prog_name="shoestring", standalone_mode=False) or 0))  # the status of a typer.Exit
    except ShoestringError as error:
        _fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os._exit(0)
        if error.filename is None:
            raise
        _fail(str(file_error(error.filename, error)))
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message())


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


def _fail(message: str) -> None:
    if message:  # empty when only the help was asked for
        print(f"shoestring: {message}", file=sys.stderr)
    sys.exit(2)
