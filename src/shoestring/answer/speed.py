"""How fast a model answers, and what a million tokens cost: latency and throughput of the engine as it is set.

    time to first token = prefill of one batch;   time per token = (whole - prefill) / (tokens of a row - 1)
    tokens/s = rows * tokens / whole;             per million tokens = joules or dollars of the whole / tokens * 10^6

The first answers warm the machine up; of the repeats after them the median counts. Prompts are the recipe's held-out text
where there is one, since what a drafter guesses depends on the text. Roofline of decoding: arXiv 2211.05102.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from shoestring import artifact
from shoestring.architecture.cost import checkpoint_counts
from shoestring.errors import SettingError
from shoestring.files import to_json
from shoestring.infer import cost
from shoestring.infer.answering import Answering, halved
from shoestring.measure import Hardware, Quantity, estimated, measured
from shoestring.measure.counts import both, times, usage
from shoestring.technique import Prediction, Sketch, State, Task, Technique, Watch, need

if TYPE_CHECKING:
    from shoestring.infer.decoder import Decoder
    from shoestring.model import Transformer


class Speed(Technique):
    """Measure how the newest checkpoint answers: time to the first token and for each, tokens a second, cost of a million."""

    name: ClassVar[str] = "speed"
    room: ClassVar[str] = "answer"
    row: ClassVar[str] = "R1"
    paper: ClassVar[str] = "2211.05102"
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    uses: ClassVar[tuple[str, ...]] = ("answering", "tokens")
    gives: ClassVar[str] = "numbers"

    rows: int = Field(1, gt=0, le=4096)
    """Answers made together."""
    prompt: int = Field(64, gt=0)
    """Tokens of each prompt."""
    tokens: int = Field(64, gt=1)
    """Tokens of each answer."""
    repeats: int = Field(3, gt=0, le=100)
    """Timed rounds, after one that is not."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """So many rounds by the roofline; a drafter's gain depends on the text and is not predicted."""
        config = sketch.model
        if config is None:
            raise SettingError("speed: needs a checkpoint, and no step before it makes one; put such a step before it")
        steps = cost.decode_counts(config, self.rows, self.prompt, self.tokens - 1, hardware)
        counts = times(both(cost.prefill_counts(config, self.rows, self.prompt, hardware), steps), self.repeats + 1)
        memory = cost.answer_memory(config, self.rows, self.prompt + self.tokens)
        flops = cost.prefill_flops(config, self.rows, self.prompt)
        flops = (self.repeats + 1) * (flops + cost.decode_total_flops(config, self.rows, self.prompt, self.tokens - 1))
        method = f"{self.repeats + 1} rounds by the roofline, loading"
        used = usage(both(counts, checkpoint_counts(config)), memory, hardware, cost.ASSUMED, flops=flops, method=method)
        return Prediction(used, sketch)

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        import torch

        from shoestring import model as room

        source = need(state, "checkpoint", self.name)
        dtype = torch.bfloat16 if halved(source, task.device) else torch.float32
        model, _ = room.load(source, dtype, task.device, watch.progress)
        if self.prompt + self.tokens > model.config.context:
            raise SettingError(
                f"speed: prompts of {self.prompt} and answers of {self.tokens} tokens exceed the model's context of "
                f"{model.config.context}; lower them"
            )
        figures = self.timed(model, self._prompts(model, state, task.seed), Answering.of(state), task.hardware, watch)
        watch.note(f"speed: {figures['time_to_first_token']} to the first token, {figures['tokens_per_second']}")
        with artifact.writing(task.out, self.gives, {"rows": self.rows}) as folder:
            record = {name: figure.to_json() for name, figure in figures.items()}
            artifact.write_whole(folder / "numbers.json", to_json(record) + "\n")
        return {**state, self.gives: task.out}

    def timed(
        self, model: Transformer, prompts: list[list[int]], answering: Answering, hardware: Hardware, watch: Watch
    ) -> dict[str, Quantity]:
        """The figures of some prompts answered together."""
        from shoestring.infer.decoder import Decoder
        from shoestring.infer.drafters import DRAFTERS

        decoder, rounds = Decoder(model, self.rows, DRAFTERS[answering.drafter], answering.guesses), []
        for number in range(self.repeats + 1):
            rounds.append(self._round(decoder, prompts))
            watch.progress(f"round {number + 1} of {self.repeats + 1}", (number + 1) / (self.repeats + 1))
        first = statistics.median(first for first, _ in rounds[1:])
        whole = statistics.median(whole for _, whole in rounds[1:])
        made, how = self.rows * self.tokens, f"median of {self.repeats}, {self.rows} together, drafter {answering.drafter}"
        watts, price = hardware.watts * hardware.count, hardware.price_per_hour * hardware.count
        return {
            "time_to_first_token": measured(first, "s", how),
            "time_per_token": measured((whole - first) / (self.tokens - 1), "s", how),
            "tokens_per_second": measured(made / whole, "tok/s", how),
            "energy_per_million": estimated(whole * watts / made * 1e6, "J", f"{watts:g} W x time"),
            "money_per_million": estimated(whole / 3600 * price / made * 1e6, "USD", f"${price:g}/h x time"),
        }

    def _round(self, decoder: Decoder, prompts: list[list[int]]) -> tuple[float, float]:
        """Seconds to the first tokens, and to the last."""
        import torch

        from shoestring.infer.decoder import Row
        from shoestring.infer.sampling import GREEDY

        sampling = GREEDY.model_copy(update={"max_tokens": self.tokens})
        began = time.perf_counter()
        with torch.inference_mode():
            decoder.admit([Row(prompt, sampling) for prompt in prompts])
            if decoder.device.type == "cuda":
                torch.cuda.synchronize()
            first = time.perf_counter() - began
            while decoder.busy:
                decoder.step()
        return first, time.perf_counter() - began

    def _prompts(self, model: Transformer, state: State, seed: int) -> list[list[int]]:
        """Held-out text of the recipe, cut anew for each row; drawn tokens when there is none."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        if "tokens" in state:
            from shoestring.data import open_tokens

            opened = open_tokens(state["tokens"])
            held = opened.heldout if len(opened.heldout) > self.prompt else opened.train
            last = len(held) - self.prompt
            if last >= 0 and opened.vocabulary <= model.config.vocabulary:
                starts = torch.randint(0, last + 1, (self.rows,), generator=generator).tolist()
                return [[int(token) for token in held[start : start + self.prompt]] for start in starts]
        drawn: list[list[int]] = torch.randint(0, model.config.vocabulary, (self.rows, self.prompt), generator=generator).tolist()
        return drawn
