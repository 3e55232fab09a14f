"""The process that renders chat templates, seen by who asks: started with the first request, and again after it had to end."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoestring.errors import ShoestringError

PROGRAM = Path(__file__).with_name("sandbox.py")


class Refused(ShoestringError):
    """A template that can't be rendered; the message says why."""


class Renderer:
    """One process for all templates; requests wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, source: str, variables: Mapping[str, Any], marks: tuple[str, str]) -> tuple[str, bool]:
        """The text that a template makes of its variables, and whether it has `{% generation %}` blocks.

        Args:
            marks: what is written before and after what such a block holds.

        Raises:
            Refused: it raised something, did not end, or wanted too much memory.
        """
        try:
            request = json.dumps({"source": source, "variables": variables, "marks": marks}).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise Refused(f"they are not plain data: {error}") from error
        with self._lock:
            line = self._ask(request)
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["text"], answer["marked"]

    def close(self) -> None:
        """End the process; the next request starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _ask(self, request: bytes) -> bytes:
        if self._process is None:
            # -P: nothing is imported from beside the program.
            command = [sys.executable, "-P", str(PROGRAM)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        try:
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        finally:
            if not line.endswith(b"\n"):  # it ended, or we were interrupted: what it still says would answer another request
                self.close()
        if not line.endswith(b"\n"):
            raise Refused(_why(process.returncode))
        return line


def _why(status: int) -> str:
    if status == -signal.SIGPROF:
        return "it did not end in time"
    return f"the process that renders it ended with status {status}, probably for want of memory"


def _forget() -> None:
    """A process that was forked off must not write into the same pipe."""
    global RENDERER
    RENDERER = Renderer()


RENDERER = Renderer()
os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: RENDERER.close())
