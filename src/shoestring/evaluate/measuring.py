"""All figures of one model at once, and the technique that writes them for a recipe's ledger.

With L the summed loss in nats of N tokens that stand for U bytes of UTF-8, p the distributions of an earlier step's model, q
ours:

    perplexity = exp(L / N);  bits per byte = L / (U ln 2);  divergence = mean of sum_v p(v) (ln p(v) - ln q(v))

Bits per byte compares models whose tokenizers differ; the divergence and the share of places where both hold the same token
likeliest say how faithful a compressed model is, whatever is right (arXiv 2109.03228). Each figure has a 95 % interval over
windows or rows. Tasks are files of questions: the answer whose text is likeliest counts, or an exact continuation.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from shoestring import artifact
from shoestring.architecture.counts import forward_flops
from shoestring.errors import SettingError
from shoestring.evaluate import cost
from shoestring.evaluate.agreement import fidelity
from shoestring.evaluate.difference import ROWS, WINDOWS
from shoestring.evaluate.tasks import scored_task
from shoestring.evaluate.text import embedded_tokens, file_tokens, heldout_tokens
from shoestring.evaluate.windows import Score, bits_per_byte
from shoestring.files import to_json
from shoestring.measure import Hardware, Quantity
from shoestring.model import Transformer
from shoestring.progress import Progress, silent, under
from shoestring.technique import FileName, Outside, Prediction, Sketch, State, StepName, Task, Technique, Watch, Word, need
from shoestring.tokenizer import Tokenizer

BITS = "bits_per_byte"
Count = Annotated[int, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found: figures by name, and the windows' score when there was one."""

    figures: dict[str, Quantity]
    score: Score | None
    right: dict[str, list[bool]]
    """For each share of a task's rows, which were right."""


def measure_model(
    model: Transformer,
    tokenizer: Tokenizer,
    text: Path | str | None,
    context: int = 1024,
    windows: int | None = None,
    tasks: Sequence[Path | str] = (),
    limit: int | None = None,
    reference: Transformer | None = None,
    progress: Progress = silent,
    field: str = "text",
    note: Callable[[str], None] | None = None,
) -> dict[str, Quantity]:
    """bits_per_byte, perplexity and loss on a text file, divergence and agreement with a reference on it, tasks' figures.

    Args:
        windows: the first so many of `context` tokens; all whole ones when None.
        limit: rows of each task at the most.
        field: the field of rows in JSON, CSV or Parquet that holds the text.
        note: told which files of a folder were left out.

    Raises:
        FileError, SettingError: a file or a setting that does not fit.
    """
    context = min(context, model.config.context)
    tokens = None
    if text is not None:
        tokens = file_tokens(text, tokenizer, None if windows is None else windows * context, field, note)
    return _figures(model, tokenizer, tokens, context, windows, False, tasks, limit, reference, progress).figures


def _figures(
    model: Transformer,
    tokenizer: Tokenizer,
    tokens: np.ndarray | None,
    context: int,
    windows: int | None,
    spread: bool,
    tasks: Sequence[Path | str],
    limit: int | None,
    reference: Transformer | None,
    progress: Progress,
) -> Measured:
    figures: dict[str, Quantity] = {}
    score = None
    if tokens is not None:
        score = bits_per_byte(model, tokenizer, tokens, context, windows, spread, progress)
        figures |= score.quantities()
        if reference is not None:
            compared = fidelity(model, reference, tokens, context, windows, spread, tokenizer, under("fidelity", progress))
            figures |= compared.quantities()
    right: dict[str, list[bool]] = {}
    for task in tasks:
        scored = scored_task(model, tokenizer, task, limit, progress)
        figures, right = figures | scored.figures, right | scored.right
    return Measured(figures, score, right)


class Evaluate(Technique):
    """Measure the newest checkpoint: bits per byte and perplexity on held-out tokens, task files, fidelity to an earlier step.

    The text is `text`, else the held-out tokens (encoded anew for a model with another tokenizer), else the topics of
    Python's help. Windows do not overlap; of held-out tokens and of the topics they are spread evenly, of a text they are
    its first ones.
    """

    name: ClassVar[str] = "evaluate"
    room: ClassVar[str] = "evaluate"
    row: ClassVar[str] = "R6"
    paper: ClassVar[str] = "fidelity: 2109.03228"
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    uses: ClassVar[tuple[str, ...]] = ("tokens",)
    gives: ClassVar[str] = "numbers"
    version: ClassVar[int] = 3

    tasks: tuple[Annotated[str, Outside((BITS,))], ...] = Field((BITS,), min_length=1)
    """"bits_per_byte" and paths of task files (see docs/evaluate.md for their forms)."""
    context: Annotated[int, Field(ge=2)] = 256
    """Tokens of a window; cut to the model's own."""
    windows: Count = 64
    """At the most."""
    text: FileName | None = None
    """A text, JSON, CSV or Parquet file, or a folder of these, to measure on instead of held-out tokens."""
    field: Word = "text"
    """The field (column) of its rows that holds the text."""
    reference: StepName | None = None
    """An earlier step whose checkpoint this one shall be faithful to."""
    limit: Count | None = None
    """Rows of each task at the most; all when not given."""

    def outside(self) -> str:
        """The contents of the files; without a text the version of Python too: its help is the text when nothing is held out."""
        return super().outside() + (platform.python_version() if self.text is None else "")

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Forward passes over the windows and the tasks' rows."""
        config = sketch.model
        if config is None:
            raise SettingError("evaluate: needs a checkpoint, and no step before it makes one; put such a step before it")
        context = min(self.context, config.context)
        windows = float(self.windows)
        if self.text is None and sketch.heldout_tokens is not None:
            windows = max(1.0, min(windows, sketch.heldout_tokens // context))
        tokens = windows * context if BITS in self.tasks else 0.0
        tokens += cost.task_tokens(map(Path, self._files()), self.limit)
        models = 1 if self.reference is None else 2
        return Prediction(cost.evaluation_usage(config, tokens, context, models, hardware), sketch)

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Measure, and write `numbers.json`, with the windows' losses beside it for a paired comparison."""
        from shoestring import model as models

        model, tokenizer = models.load(need(state, "checkpoint", self.name), device=task.device, progress=watch.progress)
        reference = None
        if self.reference is not None:
            earlier = need(task.earlier[self.reference], "checkpoint", f"{self.name}.reference ({self.reference})")
            reference = models.load_model(earlier, device=task.device, progress=watch.progress)
        tokens, what, spread = self._text(state, tokenizer, watch) if BITS in self.tasks else (None, "none", False)
        context = min(self.context, model.config.context)
        if context < self.context:
            watch.note(f"evaluate: windows of {context} tokens instead of {self.context}: the model's context ends there")
        found = _figures(
            model, tokenizer, tokens, context, self.windows, spread, self._files(), self.limit, reference, watch.progress
        )
        passes = 1 if reference is None else 2
        if found.score is not None:
            watch.meter.count(flops=passes * forward_flops(model.config, found.score.tokens, context))
        about: dict[str, Any] = {"text": what, "context": context}
        if found.score is not None:
            about["facts"] = {BITS: found.score.bits_per_byte}
        with artifact.writing(task.out, self.gives, about) as folder:
            record = {name: figure.to_json() for name, figure in found.figures.items()}
            artifact.write_whole(folder / "numbers.json", to_json(record) + "\n")
            if found.score is not None:
                lists = {"losses": found.score.window_losses, "bytes": found.score.window_bytes}
                artifact.write_whole(folder / WINDOWS, to_json(lists, indent=None) + "\n")
            if found.right:
                artifact.write_whole(folder / ROWS, to_json(found.right, indent=None) + "\n")
        return {**state, self.gives: task.out}

    def _files(self) -> list[str]:
        return [task for task in self.tasks if task != BITS]

    def _text(self, state: State, tokenizer: Tokenizer, watch: Watch) -> tuple[np.ndarray, str, bool]:
        """Tokens to measure on, what they are, and whether windows are spread over them."""
        if self.text is not None:
            return file_tokens(self.text, tokenizer, self.windows * self.context, self.field, watch.note), self.text, False
        if "tokens" in state:
            tokens = heldout_tokens(state["tokens"], tokenizer)
            if tokens is not None:
                return tokens, "held-out tokens", True
            watch.note("evaluate: no tokens are held out; measuring on the embedded text instead")
        return embedded_tokens(tokenizer), "embedded: pydoc topics", True
