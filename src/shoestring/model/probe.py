"""What handling checkpoints really takes on this machine: units for `architecture.cost`, measured by `measure.calibrate`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from shoestring.architecture import ModelConfig
from shoestring.architecture.cost import checkpoint_counts
from shoestring.artifact import writing
from shoestring.measure import Hardware, home
from shoestring.measure.calibration import timed
from shoestring.measure.fitting import fit_units
from shoestring.model.checkpoint import load, write
from shoestring.model.transformer import Transformer
from shoestring.tokenizer import Tokenizer

VOCABULARY = 4096
WIDTHS = (64, 512)
"""Of a checkpoint whose bytes hardly count, and of one of some ten million weights."""


def probe(hardware: Hardware) -> dict[str, float]:
    """Seconds to open a checkpoint and its tokenizer, of a byte read, of a byte written. About 3 s."""
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home()) as folder:
        pairs = [pair for width in WIDTHS for pair in _timed(width, Path(folder), hardware)]
    units, error = fit_units(*zip(*pairs))
    # A unit that is lost in the noise of a busy machine stays assumed: no byte is read in no time.
    return {**{term: unit for term, unit in units.items() if unit > 0}, "checkpoint.error": error}


def _timed(width: int, folder: Path, hardware: Hardware) -> list[tuple[dict[str, float], float]]:
    """Counts and seconds of reading a checkpoint, and of reading it and writing another."""
    config = ModelConfig(vocabulary=VOCABULARY, width=width, layers=3, heads=width // 32, context=256)
    tokenizer = Tokenizer.from_ranks(_ranks(), r"\S+|\s+", ["<|end|>"])
    made = folder / f"{width}"
    with writing(made, "checkpoint", {}) as out:
        write(Transformer(config).initialise(), tokenizer, out)

    def read() -> None:
        opened = load(made, device=hardware.device)[1]
        opened.decode(opened.encode("what a step reads"))

    def again() -> None:
        model, opened = load(made, device=hardware.device)
        opened.decode(opened.encode("what a step reads"))
        with writing(folder / "again", "checkpoint", {}) as out:
            write(model, opened, out)

    return [
        (checkpoint_counts(config), timed(read, seconds=0.5)),
        (checkpoint_counts(config, written=1), timed(again, seconds=0.5)),
    ]


def _ranks() -> dict[bytes, int]:
    """As many tokens as a small model has: single bytes, then pairs."""
    single = [bytes([byte]) for byte in range(256)]
    pairs = (first + second for first in single for second in single)
    return {token: rank for rank, token in enumerate([*single, *(next(pairs) for _ in range(VOCABULARY - 257))])}
