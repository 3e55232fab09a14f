"""A server in a process of its own, for the tests that need a real one: a tiny random model on a free port.

Run as a program it serves the checkpoint folder that it is given and prints its address.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = (
    "import json, sys; from shoestring.serve import serve;serve(sys.argv[1], port=0, name='tiny', **json.loads(sys.argv[2]))"
)
DEFAULTS = {"slots": 2, "waiting": 4, "threads": 1, "max_tokens": 40, "grace": 2}


@contextmanager
def serving(checkpoint: Path, **settings: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a running server, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(checkpoint), json.dumps({**DEFAULTS, **settings})],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"chat (http://\S+)/ ", line):
                yield found[1], process
                return
        raise AssertionError("the server did not start: " + "".join(said))
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()
