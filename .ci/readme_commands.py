"""Run the commands and snippets that Markdown files show, so that what they promise stays true.

    python .ci/readme_commands.py README.md docs/*.md            # run them
    python .ci/readme_commands.py --list README.md docs/*.md     # say only which blocks run, and why others do not

The line before a fenced block of console, bash, sh or python says what becomes of it: `<!-- ci -->` runs it,
`<!-- ci: skip, REASON -->` does not. A comment that begins with `<!-- ci: first` holds Python of its own, which runs in
its place and is not shown to readers: it makes what the next block needs. In a console block the lines that start with
`$ ` are commands (continued by a trailing backslash), the rest is their output; Python blocks of a page share their names,
as if typed one after the other. Each page runs in a folder of its own that `stage` fills: a tiny model under the name
smollm2-135m, some texts and tasks, and a finished run, so that the commands are those that a reader types. The first
failure ends the run.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 300
RUNS = {"console", "bash", "sh", "python"}
"""Languages whose blocks must be marked."""

BLOCK = re.compile(
    r"^<!-- ci: first *\n(?P<first>.*?)^-->[ \t]*$"
    r"|^(?:(?P<indent>[ ]*)<!-- ci(?P<mark>: skip, [^\n]+?)? -->[ \t]*\n\s*?)?^(?P<fence>[ ]*)```(?P<language>\w*)[^\n]*\n"
    r"(?P<text>.*?)^(?P=fence)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A piece of a page: what it is, and whether it runs."""

    line: int
    language: str
    script: str
    runs: bool
    reason: str = ""
    """Why it does not run."""


def blocks(markdown: str) -> Iterator[Block]:
    """The blocks of a page in order.

    Raises:
        ValueError: a block that could run is not marked, has no language, or holds no command.
    """
    for match in BLOCK.finditer(markdown):
        line = markdown.count("\n", 0, match.start()) + 1
        if match["first"] is not None:
            yield Block(line, "python", match["first"], runs=True)
            continue
        marked, language, text = match["indent"] is not None, match["language"], match["text"]
        if not language:
            raise ValueError(f"line {line}: a block without a language; write console, python, yaml or text behind its fence")
        if language not in RUNS:
            continue
        if not marked:
            raise ValueError(f"line {line}: a {language} block needs <!-- ci --> or <!-- ci: skip, REASON --> before it")
        script = _commands(text) if language == "console" else text
        if not script.strip():
            raise ValueError(f"line {line}: the block holds no command; in a console block commands start with '$ '")
        reason = (match["mark"] or "").removeprefix(": skip, ")
        yield Block(line, language, script, runs=not reason, reason=reason)


def _commands(text: str) -> str:
    """The commands of a console transcript, as one script."""
    commands: list[str] = []
    continued = False
    for line in text.splitlines():
        if continued or line.startswith("$ "):
            commands.append(line.removeprefix("> " if continued else "$ "))
            continued = line.endswith("\\")
    return "\n".join(commands) + "\n"


def stage(folder: Path) -> None:
    """Fill a folder with what the pages' commands name."""
    from shoestring.architecture import ModelConfig
    from shoestring.model import Transformer, save
    from shoestring.tokenizer import Tokenizer

    library = Path(json.__file__).parents[1]
    sources = sorted(library.glob("*.py"))[:60]
    whole = "".join(source.read_text("utf-8") for source in sources)
    for number, name in enumerate(("text.txt", "other.txt", "wiki.txt")):
        (folder / name).write_text(whole[40_000 * number : 40_000 * (number + 1)])
    for name, count in (("texts", 5), ("my_texts", 5), ("my-texts", 60)):
        (folder / name).mkdir()
        for source in sources[:count]:
            (folder / name / f"{source.stem}.txt").write_bytes(source.read_bytes())
    tokenizer = Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)}, r"\s?\w+|\W", ["<|endoftext|>"])
    config = ModelConfig(vocabulary=tokenizer.vocabulary, width=64, layers=2, heads=2, feed_forward_width=128, context=1024)
    save(Transformer(config).initialise(0), tokenizer, folder / "smollm2-135m")
    rows = [{"query": f"{n} + {n} =", "choices": [f" {2 * n}", f" {2 * n + 1}"], "gold": 0} for n in range(8)]
    (folder / "copa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"context": f"{n}, {n + 1},", "continuation": f" {n + 2}"} for n in range(8)]
    (folder / "lambada.jsonl.xz").write_bytes(lzma.compress("".join(json.dumps(row) + "\n" for row in pairs).encode()))
    (folder / "RUNS.csv").write_text(_runs())
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / "small.yaml").write_text(
        "steps: [{pretrained: {source: smollm2-135m}}, {rtn: {bits: 4, group_size: 64}}]\nquality: off\n"
    )


def _runs() -> str:
    """Losses on a known law."""
    sizes = [(N, D) for N in (1e7, 3e7, 1e8, 3e8, 1e9) for D in (3e8, 1e9, 3e9, 1e10)]
    lines = [f"{N:.0f},{D:.0f},{1.82 + 482 / N**0.348 + 2085 / D**0.366:.5f}" for N, D in sizes]
    return "\n".join(["parameters,tokens,loss", *lines]) + "\n"


def run_page(path: Path, found: list[Block]) -> None:
    """Run a page's blocks in a new staged folder.

    Raises:
        SystemExit: a block failed.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ["SHOESTRING_HOME"] = str(Path(folder, ".home"))
        stage(Path(folder))
        for block in found:
            print(f"--- {path}:{block.line} ({block.language})\n{block.script.rstrip()}\n---", flush=True)
            started = time.monotonic()
            try:
                if block.language == "python":
                    exec(compile("\n" * block.line + block.script, str(path), "exec"), names)
                else:
                    script = ["bash", "-c", "set -euo pipefail\n" + block.script]
                    subprocess.run(script, stdin=subprocess.DEVNULL, timeout=TIMEOUT_SECONDS, check=True)
            except Exception as error:
                raise SystemExit(f"{path}:{block.line}: {type(error).__name__}: {error}") from error
            print(f"--- {time.monotonic() - started:.1f} s", flush=True)


def main() -> None:
    """Run, or list, the blocks of the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ran = skipped = 0
    for page in arguments.pages:
        try:
            found = list(blocks(page.read_text("utf-8")))
        except ValueError as error:
            raise SystemExit(f"{page}: {error}") from error
        for block in found if arguments.list else ():
            print(f"{page}:{block.line}: {block.language}, " + ("runs" if block.runs else f"does not run: {block.reason}"))
        running = [block for block in found if block.runs]
        ran, skipped = ran + len(running), skipped + len(found) - len(running)
        if running and not arguments.list:
            run_page(page.resolve(), running)
    print(
        f"{ran} blocks of {len(arguments.pages)} pages {'run' if arguments.list else 'ran'}, {skipped} do not, each for a reason"
    )


if __name__ == "__main__":
    main()
