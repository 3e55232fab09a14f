"""LoRA as a step of a recipe: adapters learn on tokens or on conversations, and are merged into the checkpoint.

    y = x W^T + s (x A^T) B^T,    s = alpha / rank,  or alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)

The matrix W stays frozen, and its change is learned as a product of two thin ones (arXiv 2106.09685): there are gradients and
moments for a hundredth of the weights, so tuning fits where full training does not. B starts as zeros, so training begins at
the model itself. Merging, W + s B A, leaves a model that costs what it did before.

K inputs, N outputs, R rank: W is N x K, A is R x K, B is N x R.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shoestring.architecture import ModelConfig
from shoestring.architecture.counts import parameters
from shoestring.errors import SettingError
from shoestring.measure import Hardware
from shoestring.model import Transformer, load, write
from shoestring.technique import FileName, Prediction, Sketch, State, Task, Watch, Word, need
from shoestring.train import Around, Plan, Training
from shoestring.train.loop import Log
from shoestring.train.trained import Lesson, Trained, fitting
from shoestring.train.training_plan import MICRO_TOKENS
from shoestring.tune import cost
from shoestring.tune.adapter import adapters, add_lora, chosen, merge, trainable_parameters
from shoestring.tune.chat import encode
from shoestring.tune.files import save_adapter
from shoestring.tune.instructions import Conversations, read_messages

if TYPE_CHECKING:
    from shoestring.data.loader import Loader
    from shoestring.tokenizer import Tokenizer

Count = Annotated[int, Field(gt=0, le=65_536)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
TOKENS = 2**26
"""Tokens of one step at the most: they are all in memory, with their targets. The largest runs use a tenth of it."""
CONVERSATION = 1000.0
"""Bytes of a row of instructions, assumed when a step is predicted."""


class LoRA(Trained):
    """Adapt a model by learning a low-rank change of its matrices; the change is merged, and kept beside as a PEFT adapter.

    Learns from the tokens, or from the conversations in `data`, of which only the assistant's words count.
    """

    name: ClassVar[str] = "lora"
    room: ClassVar[str] = "tune"
    row: ClassVar[str] = "U1"
    paper: ClassVar[str] = "2106.09685"
    saves: ClassVar[tuple[str, ...]] = ("memory", "computation", "storage")
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    uses: ClassVar[tuple[str, ...]] = ("tokens",)
    version: ClassVar[int] = 4

    rank: Count = 8
    """Rank of the learned change of each matrix."""
    alpha: Positive = 16.0
    """The change is scaled by alpha / rank."""
    rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank): rsLoRA (arXiv 2312.03732)."""
    targets: tuple[Word, ...] = Field(("all",), min_length=1, max_length=1000)
    """Matrices to adapt: names such as "query", "mixer.value", "feed_forward.down", or "all"."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is left out at random while it learns."""
    keep_zeros: bool = True
    """Zeros of pruned matrices stay: their change is masked. Without it merging fills them."""
    data: FileName | None = None
    """Rows of conversations (messages, ShareGPT, Alpaca, prompt and completion), instead of the tokens."""
    learning_rate: Positive = 2e-4
    """At the schedule's peak."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps until the learning rate's peak; then it falls along a cosine."""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Pulls the adapter's matrices towards zero."""
    steps: Annotated[int, Field(gt=0, le=10**9)] | None = None
    """As many as `epochs` needs when not given."""
    epochs: Positive = 1.0
    """Times that everything is read, when `steps` is not given."""
    batch: Count = 8
    """Sequences of one step."""
    micro_batch: Count | None = None
    """Sequences in memory at one time; when not given as many as hold 1,024 tokens on a CPU, 16,384 on a GPU."""
    context: Annotated[int, Field(ge=2, le=2**24)] | None = None
    """Tokens of a sequence; the model's own, at most 512, when not given."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Training steps without the frozen matrices' gradients."""
        config = sketch.model
        if config is None:
            raise SettingError("lora: needs a checkpoint, and no step before it makes one; put such a step before it")
        context = self._context(config)
        cost.must_be_low(self.rank, [min(cost.matrices(config)[name]) for name in chosen(self.targets, cost.matrices(config))])
        steps = self.steps or self._steps(self._sequences(sketch, context))
        micro = self._micro_batch(context, hardware.device)
        adapter = cost.adapter_parameters(config, self.rank, chosen(self.targets, cost.matrices(config)))
        usage = cost.tuning_usage(config, steps, self.batch, context, micro, self.precise(hardware.device), adapter, hardware)
        bits = 16.0 if sketch.bits_per_weight == 16 else 32.0  # as `model.write` stores it: half precision stays that
        after = sketch.with_(
            trained_tokens=sketch.trained_tokens + steps * self.batch * context,
            bits_per_weight=bits,
            sparsity=sketch.sparsity if self.keep_zeros and sketch.bits_per_weight >= 16 else 0.0,
            disk_bytes=bits / 8 * parameters(config) + 4.0 * adapter,
            bits_per_byte=None,
        )
        return Prediction(usage, after)

    def apply_to(
        self, model: Transformer, batches: Loader | Conversations, steps: int, seed: int = 0, around: Around | None = None
    ) -> Log:
        """Put adapters on a model in memory and train them; `merge` joins them to it, `save_adapter` writes them.

        Returns:
            The training loop's log.
        """
        around = around or Around()
        return self.adapted(model, batches, steps, seed, around.note).learn(around)

    def adapted(
        self, model: Transformer, batches: Loader | Conversations, steps: int, seed: int, note: Callable[[str], None], **more: Any
    ) -> Lesson:
        """A model in memory with adapters that are to learn.

        Args:
            batches: anything with `batch(step)`, such as a `data.Loader` or `Conversations`.
            more: of the lesson.
        """
        device = model.embedding.weight.device.type
        whole = sum(p.numel() for p in model.parameters())
        packed = any(matrix.form != "dense" for _, matrix in model.matrices())
        add_lora(model, self.rank, self.alpha, self.targets, self.dropout, self.rank_stabilised, self.keep_zeros, seed)
        learned = trainable_parameters(model)
        masked = sum(layer.kept is not None for layer in adapters(model).values())
        note(
            f"lora: {learned:,} parameters learn ({learned / (whole + learned):.2%}), the model is frozen"
            + (", its packed matrices stay packed while it learns" if packed else "")
            + (f"; the zeros of {masked} pruned matrices stay" if masked else "")
        )
        settings = Training(
            schedule="cosine",
            weight_decay=self.weight_decay,
            precision=self.precise(device),
            log_every=max(1, steps // 50),
        )
        micro = self._micro_batch(batches.context, device)
        plan = Plan(steps, self.learning_rate, int(self.warmup * steps), micro_batches=self.batch // micro)
        return Lesson(model, batches, plan, settings, **more)

    def lesson(self, state: State, task: Task, watch: Watch) -> Lesson:
        """Adapters for the newest checkpoint, and tokens or conversations."""
        model, tokenizer = load(need(state, "checkpoint", self.name), device=task.device, progress=watch.progress)
        context = self._context(model.config)
        batches = self._batches(state, model.config, tokenizer, context, task.seed, watch)
        length = batches.mean_length if isinstance(batches, Conversations) else context
        adapter = cost.adapter_parameters(model.config, self.rank, chosen(self.targets, cost.matrices(model.config)))
        return self.adapted(
            model,
            batches,
            self.steps or self._steps(batches.windows),
            task.seed,
            watch.note,
            flops=cost.step_flops(model.config, self.batch * length, length, adapter),
            tokenizer=tokenizer,
            learned=task.sketch.trained_tokens,
            about={"settings": self.model_dump(mode="json"), "adapter_parameters": adapter},
        )

    def written(self, lesson: Lesson, folder: Path, task: Task, watch: Watch) -> dict[str, Any]:
        """The merged model, and the adapter beside it."""
        model = lesson.model
        unpacked = sum(layer.base.form != "dense" for layer in adapters(model).values())
        (folder / "adapter").mkdir()
        save_adapter(model, folder / "adapter")
        merge(model)
        facts = write(model, lesson.tokenizer, folder)
        if unpacked:
            watch.note(f"lora: merging has unpacked {unpacked} matrices to float32; quantize the model again after it")
        if not self.keep_zeros and task.sketch.sparsity > 0:
            watch.note("lora: merging has filled the zeros of pruned matrices; keep_zeros: true would keep them")
        return dict(facts)

    def _batches(
        self, state: State, config: ModelConfig, tokenizer: Tokenizer, context: int, seed: int, watch: Watch
    ) -> Loader | Conversations:
        if self.data is not None:
            found, rows = read_messages(self.data), []
            for number, (where, messages) in enumerate(found):
                rows.append(encode(tokenizer, messages, where))
                if number % 64 == 0:
                    watch.progress("writing conversations as tokens", number / len(found))
            made = Conversations(rows, self.batch, context, seed, tokenizer.end)
            if made.dropped:
                watch.note(f"lora: {made.dropped} of {len(rows)} conversations have no answer within {context} tokens: left out")
            if made.empty:
                watch.note(f"lora: {made.empty} answers of {len(rows)} conversations are empty or weigh 0: not learned")
            return made
        from shoestring.data.loader import Loader

        if "tokens" not in state:
            raise SettingError("lora: needs tokens, and no step before it makes them; put tokenize before it, or give data")
        opened = fitting(state["tokens"], config.vocabulary, self.name)
        return Loader(opened.train, opened.train_offsets, self.batch, context, seed)

    def _context(self, config: ModelConfig) -> int:
        if self.context is not None and self.context > config.context:
            raise SettingError(f"lora.context: {self.context} tokens are more than the model attends over ({config.context})")
        context = self.context or min(config.context, 512)
        if self.batch * context > TOKENS:
            raise SettingError(
                f"lora.batch: {self.batch} sequences of {context} tokens are {self.batch * context:,} tokens a step; at most "
                f"{TOKENS:,} fit: lower batch or context"
            )
        return context

    def _sequences(self, sketch: Sketch, context: int) -> float:
        """Sequences of one epoch, as far as they are known beforehand."""
        if self.data is not None:
            file = Path(self.data)
            return (file.stat().st_size if file.is_file() else 0.0) / CONVERSATION
        if sketch.tokens is None:
            raise SettingError("lora: needs tokens, and no step before it makes them; put tokenize before it, or give data")
        return sketch.tokens // context

    def _micro_batch(self, context: int, device: str) -> int:
        """Sequences in memory at one time; divides the batch."""
        # Half of what keeps a device busy: activations stay small beside the frozen weights.
        requested = self.micro_batch or MICRO_TOKENS[device] // 2 // context
        return max(size for size in range(1, self.batch + 1) if self.batch % size == 0 and size <= max(1, requested))

    def _steps(self, sequences: float) -> int:
        return max(1, math.ceil(self.epochs * sequences / self.batch))
