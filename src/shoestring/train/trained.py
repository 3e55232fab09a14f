"""What all techniques that train share: from a lesson, which each makes its own way, to a checkpoint with its log.

A new one is an objective, and a `lesson` that says what is learned from what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shoestring import artifact
from shoestring.data.loader import Batches
from shoestring.errors import DeviceError, SettingError
from shoestring.technique import State, Task, Technique, Watch
from shoestring.train.callbacks import Callback
from shoestring.train.log import cut, write_log
from shoestring.train.loop import Log, train
from shoestring.train.loss import Objective
from shoestring.train.parallel.layout import Layout, join
from shoestring.train.parallel.ranks import rank, ranks
from shoestring.train.parts import Around
from shoestring.train.precision import Precision, usual
from shoestring.train.schedule import Plan
from shoestring.train.settings import Training

if TYPE_CHECKING:
    from shoestring.data import Tokens
    from shoestring.model import Transformer
    from shoestring.tokenizer import Tokenizer

Seconds = Annotated[float, Field(gt=0, le=1e9)]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A model, and what it learns from and how.

    Attributes:
        objective: next-token cross-entropy when not given.
        flops: operations of one step; a Transformer's training cost when not given.
        tokenizer: written beside the model. learned: tokens that the model had learned from before.
        about: what the artifact says of itself beside the facts.
    """

    model: Transformer
    batches: Batches
    plan: Plan
    settings: Training
    objective: Objective | None = None
    callbacks: tuple[Callback, ...] = ()
    flops: float | None = None
    tokenizer: Tokenizer | None = None
    learned: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def learn(self, around: Around | None = None) -> Log:
        """Train the model, in place; the training loop's log."""
        around = around or Around()
        around = replace(around, callbacks=(*around.callbacks, *self.callbacks), flops=around.flops or self.flops)
        return train(self.model, self.batches, self.plan, self.objective, self.settings, around)


class Trained(Technique):
    """Trains a model and writes it as a checkpoint with its log."""

    gives: ClassVar[str] = "checkpoint"
    shared: ClassVar[bool] = True

    precision: Precision | None = None
    """bf16 on a GPU, fp32 on a CPU, when neither this nor a plan says."""
    time_limit: Seconds | None = None
    """Seconds; what the budget leaves after the later steps, when not given."""

    def lesson(self, state: State, task: Task, watch: Watch) -> Lesson:
        """All that happens before the first step."""
        raise NotImplementedError

    def written(self, lesson: Lesson, folder: Path, task: Task, watch: Watch) -> dict[str, Any]:
        """Write what was learned into a folder; the facts of it."""
        from shoestring.model import write

        return dict(write(lesson.model, lesson.tokenizer, folder))

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Train, and write the checkpoint with its log. Where several processes do this together, the model is divided among them
        (`parallel.Layout.shard`), and the first one writes.
        """
        must_be_there(task.device, self.name)
        lesson = self.lesson(state, task, watch)
        limit = self.time_limit or task.seconds_left
        mesh = Layout(shard=ranks()).mesh(task.device) if ranks() > 1 else None
        log = lesson.learn(Around(task.scratch / "train", watch.meter, watch.progress, watch.note, time_limit=limit, mesh=mesh))
        join(lesson.model).cpu()
        if rank() == 0:
            self._finish(lesson, log, task, watch)
        return {**state, "checkpoint": task.out}

    def _finish(self, lesson: Lesson, log: Log, task: Task, watch: Watch) -> None:
        """Write the artifact."""
        about = {**lesson.about, **cut(log, lesson.plan.steps, self.time_limit)}
        with artifact.writing(task.out, "checkpoint", about) as folder:
            facts = self.written(lesson, folder, task, watch)
            write_log(folder, log)
            about["facts"] = {**facts, "trained_tokens": lesson.learned + float(log[-1]["tokens"])}

    def precise(self, device: str) -> Precision:
        """The precision in force on a device, when no plan says."""
        return self.precision or usual(device)


def must_be_there(device: str, who: str) -> None:
    """Refuse a device that PyTorch does not see.

    Raises:
        DeviceError: it doesn't.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"{who}: no CUDA device is there; run on the CPU with device: cpu")


def fitting(tokens: Path, vocabulary: int, who: str) -> Tokens:
    """Tokens that a model with so many entries can learn from.

    Raises:
        SettingError: their tokenizer has more.
    """
    from shoestring.data import open_tokens

    opened = open_tokens(tokens)
    if opened.vocabulary > vocabulary:
        raise SettingError(
            f"{who}: the tokens' vocabulary has {opened.vocabulary} entries, the model's {vocabulary}; "
            "tokenize with `tokenizer: checkpoint`"
        )
    return opened
