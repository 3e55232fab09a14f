"""Pretraining: a model learns from scratch to predict the next token.

    loss = -mean over all places t of ln p(token t+1 | tokens up to t)

Gradient steps on batches of windows that a seed shuffles, each seen once before any is seen again; the learning rate rises in a
warm-up, then follows the schedule. What is not set follows from the plan; without a plan the learning rate is Kaplan's
0.003239 - 0.0001395 ln N for N parameters (arXiv 2001.08361, equation D.1), and the text is read once.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from shoestring.architecture import ModelConfig, counts
from shoestring.choice import OneOf
from shoestring.data.orders import ORDERS
from shoestring.data.packing import PACKINGS
from shoestring.errors import DamagedArtifact, SettingError
from shoestring.measure import Hardware
from shoestring.model import Transformer
from shoestring.technique import Plain, Prediction, Sketch, State, Task, Watch, Word, configure, need
from shoestring.train.compiling import Compile
from shoestring.train.optimizers import OPTIMIZERS
from shoestring.train.precision import usual
from shoestring.train.schedule import Plan
from shoestring.train.settings import Learning, Positive, Training
from shoestring.train.trained import Lesson, Trained
from shoestring.train.training_plan import TrainingPlan

Count = Annotated[int, Field(gt=0)]

BATCH_TOKENS = 32_768
"""Tokens of one optimizer step when neither a setting nor a plan says."""
WARMUP, DECAY = 0.05, 0.2
"""Shares of the steps, likewise."""


class Pretrain(Learning, Trained):
    """Train a new model on the tokens: AdamW, warm-up, stable and decaying learning rate, exact restart after a kill.

    `model: auto` takes everything from the plan step before it; a mapping names the model's shape (see ModelConfig), its
    vocabulary taken from the tokens when not given. What is set here wins over the plan.
    """

    name: ClassVar[str] = "pretrain"
    room: ClassVar[str] = "train"
    row: ClassVar[str] = "T2"
    paper: ClassVar[str] = "1711.05101"
    saves: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ("tokens",)
    uses: ClassVar[tuple[str, ...]] = ("plan",)
    version: ClassVar[int] = 4

    model: Literal["auto"] | Annotated[dict[str, Any], Plain()] = "auto"
    """auto: as the plan step decided; else a ModelConfig, such as {width: 256, layers: 5, heads: 4, context: 256}."""
    tokens: Count | None = None
    """To read in all; once through the training tokens when neither this, nor steps, nor a plan says."""
    steps: Count | None = None
    """Optimizer steps; as planned, or as `tokens` make them, when not given."""
    batch_tokens: Count | None = None
    """Tokens of one optimizer step."""
    micro_batch: Count | None = None
    """Sequences in memory at one time; made smaller when it does not divide the batch."""
    learning_rate: Positive | None = None
    """At the schedule's peak; as planned when not given."""
    warmup: Annotated[int, Field(ge=0)] | None = None
    """Steps."""
    decay: Annotated[int, Field(ge=0)] | None = None
    """Steps."""
    compile: Compile | None = None
    """regional on a GPU, none on a CPU, when not given."""
    packing: Annotated[str, OneOf(PACKINGS)] = "stream"
    """How documents fill sequences: cut wherever one is full, or packed whole where they fit (arXiv 2404.10830)."""
    order: Annotated[str, OneOf(ORDERS)] = "shuffled"
    """In which order an epoch reads its sequences."""
    score: Word = "perplexity"
    """The score that the orders curriculum and importance go by; a step before tokenize gives it."""
    mixture: dict[Word, Positive] = {}
    """Weights of the sources, for the order mixed: {prose: 3, code: 1}."""

    @field_validator("model")
    @classmethod
    def _shape(cls, model: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(model, dict):
            try:
                configure(ModelConfig, {"vocabulary": 1, **model}, "model")
            except SettingError as error:
                raise ValueError(str(error)) from None
        return model

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Steps x the calibrated time of one; memory from the model's shape."""
        from shoestring.train.cost import training_usage

        known = sketch.plan if isinstance(sketch.plan, TrainingPlan) else None
        plan = self.resolve(sketch.tokens, sketch.vocabulary, known, hardware.device)
        whole, matrices = counts.parameters(plan.model), counts.linear_parameters(plan.model)
        usage = training_usage(
            plan.model,
            plan.steps,
            plan.batch,
            plan.context,
            plan.precision,
            hardware,
            micro_batch=plan.micro_batch,
            moments=OPTIMIZERS[self.optimizer].kept(matrices, whole - matrices) / whole,
        )
        after = sketch.with_(
            model=plan.model,
            trained_tokens=float(plan.tokens),
            bits_per_weight=32.0,
            sparsity=0.0,
            disk_bytes=4.0 * counts.parameters(plan.model),
        )
        return Prediction(usage, after)

    def lesson(self, state: State, task: Task, watch: Watch) -> Lesson:
        """A new model, and the tokens."""
        from shoestring.data import open_tokens
        from shoestring.data.loader import Loader
        from shoestring.data.orders import Known

        tokens = open_tokens(need(state, "tokens", "pretrain"))
        tokenizer = tokens.tokenizer()
        known = None if "plan" not in state else read_plan(state["plan"])
        plan = self.resolve(len(tokens.train), tokenizer.vocabulary, known, task.device)
        compiled = self.compile or ("regional" if task.device == "cuda" else "none")
        chosen = {name: getattr(self, name) for name in Learning.model_fields}
        watch.note(
            f"pretraining {counts.parameters(plan.model):,} parameters on {task.device}: {plan.steps} steps of "
            f"{plan.batch} x {plan.context} tokens, learning rate {plan.learning_rate:.3g}, {plan.precision}, compile {compiled}"
        )
        known_by = Known(tokens, self.score, self.mixture)
        return Lesson(
            Transformer(plan.model).initialise(task.seed).to(task.device),
            Loader(
                tokens.train,
                tokens.train_offsets,
                plan.batch,
                plan.context,
                task.seed,
                self.packing,
                order=self.order,
                known=known_by,
            ),
            Plan(plan.steps, plan.learning_rate, plan.warmup, plan.decay, plan.batch // plan.micro_batch),
            Training(**chosen, precision=plan.precision, compile=compiled),
            tokenizer=tokenizer,
            about={"plan": plan.model_dump(mode="json", exclude={"formulas", "seconds"})},
        )

    def resolve(self, tokens: float | None, vocabulary: int | None, plan: TrainingPlan | None, device: str) -> TrainingPlan:
        """The plan in force: what is set here, then what `plan` says, then this file's rules.

        Args:
            tokens: there are for training. vocabulary: of their tokenizer.

        Raises:
            SettingError: a part is missing or does not fit.
        """
        config = self._config(vocabulary, plan)
        context = plan.context if plan is not None and self.model == "auto" else config.context
        batch = plan.batch if plan is not None else max(1, BATCH_TOKENS // context)
        if self.batch_tokens is not None:
            if self.batch_tokens < context:
                raise SettingError(f"pretrain.batch_tokens: must hold one sequence of {context} tokens, got {self.batch_tokens}")
            batch = self.batch_tokens // context
        steps = self._steps(tokens, plan, batch * context)
        micro = min(batch, self.micro_batch or (plan.micro_batch if plan is not None else batch))
        while batch % micro:
            micro -= 1
        warmup, decay = self.warmup, self.decay
        if plan is not None:
            scale = steps / plan.steps
            warmup = round(plan.warmup * scale) if warmup is None else warmup
            decay = round(plan.decay * scale) if decay is None else decay
        warmup = math.ceil(WARMUP * steps) if warmup is None else warmup
        decay = round(DECAY * steps) if decay is None else decay
        if warmup + decay > steps:
            raise SettingError(
                f"pretrain: warmup ({warmup}) and decay ({decay}) are more than its {steps} steps; lower them or raise tokens"
            )
        return TrainingPlan(
            model=config,
            steps=steps,
            batch=batch,
            micro_batch=micro,
            context=context,
            learning_rate=self.learning_rate or (plan.learning_rate if plan is not None else _rate(config)),
            warmup=warmup,
            decay=decay,
            precision=self.precision or (plan.precision if plan is not None else usual(device)),
            tokens=steps * batch * context,
            seconds=plan.seconds if plan is not None else 0.0,
            formulas=plan.formulas if plan is not None else (),
        )

    def _config(self, vocabulary: int | None, plan: TrainingPlan | None) -> ModelConfig:
        if isinstance(self.model, str):
            if plan is None:
                raise SettingError("pretrain.model: auto needs a plan; put a plan step before it, or name the model's shape here")
            config = plan.model
        else:
            if vocabulary is None and "vocabulary" not in self.model:
                raise SettingError("pretrain.model.vocabulary: must be given, since no step before it says")
            config = configure(ModelConfig, {"vocabulary": vocabulary, **self.model}, "pretrain.model")
        if vocabulary is not None and config.vocabulary < vocabulary:
            raise SettingError(
                f"pretrain.model.vocabulary: {config.vocabulary} is less than the tokens' {vocabulary}; raise it or leave it out"
            )
        return config

    def _steps(self, tokens: float | None, plan: TrainingPlan | None, step_tokens: int) -> int:
        if self.steps is not None:
            return self.steps
        wanted = self.tokens or (plan.tokens if plan is not None else tokens)
        if wanted is None:
            raise SettingError("pretrain.tokens: must be given, since no step before it says how many there are")
        return max(1, int(wanted) // step_tokens)


def read_plan(folder: Path) -> TrainingPlan:
    """The plan that a plan step wrote.

    Raises:
        DamagedArtifact: it can't be read.
    """
    file = folder / "plan.json"
    try:
        return TrainingPlan.model_validate_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedArtifact(file, "not a training plan") from error


def _rate(config: ModelConfig) -> float:
    """Kaplan's learning rate for a model of this size, at least 1e-4."""
    return max(1e-4, 0.003239 - 0.0001395 * math.log(counts.parameters(config)))
