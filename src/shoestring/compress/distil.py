"""Distillation: a student learns a teacher's whole distribution over the next token, not only the text's one token.

    loss = (1 - alpha) * temperature^2 * divergence(student, teacher at that temperature) + alpha * cross-entropy of the text

What a teacher gives to the tokens that did not come says which would have fitted as well, so each place teaches more than the
text does (Hinton et al., arXiv 1503.02531). The divergence is one of `kind`'s. Zeros of a pruned student stay zero.

B batch, T tokens, N tokens that count, C width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import forward_flops, training_flops
from shoestring.compress import cost, finite
from shoestring.compress.base import Count, Note, refuse_packed
from shoestring.compress.divergence import DivergenceName, Mix
from shoestring.data.batch import IGNORED, Batch
from shoestring.errors import SettingError
from shoestring.measure import Hardware
from shoestring.model import Inputs, Transformer, hidden, load, load_model
from shoestring.technique import Prediction, Sketch, State, StepName, Task, Watch, need
from shoestring.train import Around, KeepZeros, Loss, Objective, Plan, Training
from shoestring.train.chunked import chunked
from shoestring.train.loop import Log
from shoestring.train.trained import Lesson, Trained, fitting

if TYPE_CHECKING:
    from shoestring.data.loader import Loader

KNOWN = 1_000_000
"""Tokens to take the share of, when nobody knows how many the student has learned from."""


def objective(teacher: Transformer, mix: Mix | None = None) -> Objective:
    """The loss of distillation from `teacher`, for the training loop: summed over the targets that count."""
    how = mix or Mix()

    def loss(model: nn.Module, batch: Batch) -> Loss:
        tokens_BT, targets_BT, inputs = batch["tokens"], batch["targets"], Inputs(documents_BT=batch.get("documents"))
        with torch.no_grad():
            theirs_BTC = teacher(tokens_BT, inputs, read=hidden)
        counted_BT = targets_BT != IGNORED
        theirs_NC, targets_N = theirs_BTC[counted_BT], targets_BT[counted_BT]

        def kernel(logits_NV: Tensor, part: slice) -> tuple[Tensor, Tensor]:
            total, gradient_NV = how.loss(logits_NV, teacher.head(theirs_NC[part]), targets_N[part])
            return total, gradient_NV.to(logits_NV.dtype)

        def read(x_BTC: Tensor, head: nn.Module) -> Tensor:
            return chunked(x_BTC[counted_BT], head, kernel, cost.DISTIL_CHUNK)

        return Loss(model(tokens_BT, inputs, read=read), counted_BT.sum())

    return loss


class Distil(Trained):
    """Heal a compressed model by learning from the model it came from, or teach a small model with a large one.

    `teacher` names the step that made the teacher. Weights that are zero stay zero.
    """

    name: ClassVar[str] = "distil"
    room: ClassVar[str] = "compress"
    row: ClassVar[str] = "K1, I5"
    paper: ClassVar[str] = "1503.02531"
    saves: ClassVar[tuple[str, ...]] = ("data", "computation")
    reads: ClassVar[tuple[str, ...]] = ("checkpoint", "tokens")
    needs: ClassVar[tuple[str, ...]] = ("unpacked",)
    version: ClassVar[int] = 3

    teacher: StepName
    """The step whose checkpoint teaches."""
    tokens: Count | None = None
    """To learn from."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """When `tokens` is not given: this share of the tokens that the student has learned from so far."""
    kind: DivergenceName = "forward"
    """forward KL, reverse KL, or jsd, the Jensen-Shannon divergence."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Both distributions are flattened by it."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of the text's own next token."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """At the schedule's peak."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps until the learning rate's peak; then it falls along a cosine."""
    batch_tokens: Count = 8192
    """Tokens of one optimizer step."""
    context: Count | None = None
    """Tokens of one sequence; the model's own, at most 1024, when not given."""

    def steps(self, learned: float, length: int) -> tuple[int, int]:
        """Optimizer steps, and sequences of one, for a student that has learned from so many tokens."""
        wanted = self.tokens or self.share * (learned or KNOWN)
        batch = max(1, self.batch_tokens // length)
        return max(1, int(wanted) // (batch * length)), batch

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Training steps of the student, and forward passes of the teacher beside them."""
        if sketch.model is None:
            return cost.predict_weights(sketch, hardware, None, sketch.sparsity, 0.0)
        length = self.length(sketch.model)
        steps, batch = self.steps(sketch.trained_tokens, length)
        usage = cost.distil_usage(sketch.model, steps, batch, length, self.precise(hardware.device), hardware)
        tokens = sketch.trained_tokens + steps * batch * length
        return Prediction(usage, sketch.with_(trained_tokens=tokens, bits_per_byte=None))

    def length(self, config: ModelConfig) -> int:
        """Tokens of one sequence.

        Raises:
            SettingError: more than the model attends over.
        """
        if self.context is not None and self.context > config.context:
            raise SettingError(f"distil.context: {self.context} tokens are more than the model attends over ({config.context})")
        return self.context or min(config.context, 1024)

    def apply_to(
        self, student: Transformer, teacher: Transformer, loader: Loader, steps: int, around: Around | None = None
    ) -> Log:
        """Train a student in memory, in place, by `steps` batches; the training loop's log. Raises as `taught`."""
        around = around or Around()
        return self.taught(student, teacher, loader, steps, around.note).learn(around)

    def taught(self, student: Transformer, teacher: Transformer, loader: Loader, steps: int, note: Note, **more: Any) -> Lesson:
        """A student in memory that is to learn from a teacher; `more` of the lesson.

        Raises:
            SettingError: a quantized student, or vocabularies that differ.
            NotFinite: a weight of either is NaN or infinite.
        """
        refuse_packed(student, self.name)
        finite.check_model(student, f"{self.name}: the student")
        finite.check_model(teacher, f"{self.name}: the teacher")
        if student.config.vocabulary != teacher.config.vocabulary:
            raise SettingError(
                f"distil.teacher: its vocabulary has {teacher.config.vocabulary} entries, the student's "
                f"{student.config.vocabulary}; distributions can only be compared over one vocabulary"
            )
        device = student.embedding.weight.device
        teacher = teacher.to(device).eval().requires_grad_(False)
        keep = KeepZeros(student)
        how = "Jensen-Shannon divergence" if self.kind == "jsd" else f"{self.kind} KL"
        note(f"distilling by {how} in {steps} steps; zeros stay in {len(keep.masks)} matrices")
        settings = Training(
            schedule="cosine", weight_decay=0.0, precision=self.precise(device.type), log_every=max(1, steps // 50)
        )
        plan = Plan(steps, self.learning_rate, int(self.warmup * steps))
        loss = objective(teacher, Mix(self.kind, self.temperature, self.alpha))
        return Lesson(student, loader, plan, settings, loss, (keep,), **more)

    def lesson(self, state: State, task: Task, watch: Watch) -> Lesson:
        """The newest checkpoint, its teacher, and the tokens."""
        from shoestring.data.loader import Loader as Windows

        student, tokenizer = load(need(state, "checkpoint", self.name), device=task.device, progress=watch.progress)
        teacher = load_model(self._teacher(task), device=task.device, progress=watch.progress)
        opened = fitting(need(state, "tokens", self.name), student.config.vocabulary, self.name)
        length = self.length(student.config)
        steps, batch = self.steps(task.sketch.trained_tokens, length)
        return self.taught(
            student,
            teacher,
            Windows(opened.train, opened.train_offsets, batch, length, task.seed + 1),
            steps,
            watch.note,
            flops=training_flops(student.config, batch * length, length) + forward_flops(teacher.config, batch * length, length),
            tokenizer=tokenizer,
            learned=task.sketch.trained_tokens,
            about={"settings": self.model_dump(mode="json")},
        )

    def _teacher(self, task: Task) -> Any:
        made = task.earlier.get(self.teacher, {})
        if "checkpoint" not in made:
            raise SettingError(f"distil.teacher: the step {self.teacher!r} makes no checkpoint; name one that does")
        return made["checkpoint"]
