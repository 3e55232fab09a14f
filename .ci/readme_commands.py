"""Run the commands that a Markdown file shows, so that what it promises stays true.

A fenced block is run when the line before it is the comment `<!-- ci -->`. In a `console` block the lines that start
with `$ ` are commands (continued by a trailing backslash) and the rest is their output; a `bash` or `sh` block is run
whole, a `python` block by Python. Blocks run in order, each in the folder where this starts, with the environment's
programs first on the path; the first that fails ends the run.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 600
BLOCK = re.compile(r"^<!-- ci -->[ \t]*\n(?:[ \t]*\n)?```(\w+)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^<!-- ci -->", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    script: str


def console_commands(text: str) -> str:
    """The commands of a console transcript, as one script."""
    commands: list[str] = []
    continued = False
    for line in text.splitlines():
        if continued:
            commands.append(line.removeprefix("> "))
        elif line.startswith("$ "):
            commands.append(line[2:])
        else:
            continue
        continued = line.endswith("\\")
    return "\n".join(commands) + "\n"


def blocks(markdown: str) -> list[Block]:
    """The marked blocks in order. Raises ValueError for a mark without a block that can be run."""
    found = []
    for match in BLOCK.finditer(markdown):
        language, text = match.groups()
        line = markdown.count("\n", 0, match.start()) + 1
        if language == "console":
            text = console_commands(text)
        elif language not in {"bash", "sh", "python"}:
            raise ValueError(f"line {line}: a {language} block cannot be run; use console, bash, sh or python")
        if not text.strip():
            raise ValueError(f"line {line}: the block holds no command; in a console block commands start with '$ '")
        found.append(Block(line, language, text))
    if len(found) != len(MARK.findall(markdown)):
        raise ValueError("a line '<!-- ci -->' is not followed by a fenced block")
    return found


def run(block: Block) -> int:
    """Run one block, its output passed through; returns its exit status."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    command = [sys.executable, "-c", block.script]
    if block.language != "python":
        command = ["bash", "-c", "set -euo pipefail\n" + block.script]
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        print(f"ran longer than {TIMEOUT_SECONDS} s", flush=True)
        return 124
    return done.returncode


def main() -> int:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "README.md")
    try:
        marked = blocks(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    if not marked:
        print(f"{path}: no block is marked with <!-- ci -->, so nothing was checked", file=sys.stderr)
        return 2
    for block in marked:
        print(f"--- {path}:{block.line} ({block.language})\n{block.script.rstrip()}\n---", flush=True)
        started = time.monotonic()
        status = run(block)
        if status != 0:
            print(f"{path}:{block.line}: exit status {status}", file=sys.stderr)
            return 1
        print(f"--- {time.monotonic() - started:.1f} s", flush=True)
    print(f"{len(marked)} marked blocks of {path} ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
