"""Text from the newest checkpoint, so that a person sees what a run has made: prompts in, continuations out.

    p = softmax(logits / temperature), of the `top_k` likeliest tokens, of those that together reach the share `top_p`

Nucleus sampling (top-p, arXiv 1904.09751) cuts the long tail of unlikely tokens where the model is sure and leaves choice
where it is not. All prompts are answered in one batch with their keys and values kept, and an answer that ends makes room
(continuous batching, as Orca's): reading the weights, most of the time of a step, is shared by all.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from shoestring import artifact
from shoestring.architecture import ModelConfig
from shoestring.architecture.cost import checkpoint_counts
from shoestring.errors import SettingError
from shoestring.files import to_json
from shoestring.infer import cost
from shoestring.infer.answers import generate
from shoestring.infer.sampling import Sampling
from shoestring.infer.stops import stop_tokens
from shoestring.measure import Hardware
from shoestring.measure.counts import both, usage
from shoestring.model import Transformer
from shoestring.model.forms import put, to_dense
from shoestring.progress import Progress
from shoestring.technique import Prediction, Sketch, State, Task, Technique, Watch, Word, need
from shoestring.tokenizer import Tokenizer

TOKENS_PER_PROMPT = 12
"""Assumed when a prompt's cost is predicted before a tokenizer exists."""


class Sample(Technique):
    """Continue prompts with the newest checkpoint; greedy at temperature 0, otherwise drawn from the recipe's seed."""

    name: ClassVar[str] = "sample"
    room: ClassVar[str] = "infer"
    row: ClassVar[str] = "C3"
    paper: ClassVar[str] = "continuous batching: Orca (Yu and others, OSDI 2022); nucleus sampling: 1904.09751"
    saves: ClassVar[tuple[str, ...]] = ("computation",)
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    gives: ClassVar[str] = "text"
    version: ClassVar[int] = 2

    prompts: tuple[Word, ...] = Field(("import ", "def main(", "Return the ", "The most important thing is"), min_length=1)
    """Texts to continue; an empty one starts a document."""
    max_tokens: int = Field(64, gt=0)
    """Tokens of each continuation at the most."""
    temperature: float = Field(0.8, ge=0)
    """0 always takes the likeliest token; 1 draws as the model says; above, more evenly."""
    top_k: int = Field(0, ge=0)
    """Draw from this many likeliest tokens; 0: from all."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Draw from the likeliest tokens that together have this share of the probability."""
    chat: bool = False
    """Set each prompt as a user's message in the model's chat form, instead of as a text to continue."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        config = sketch.model
        if config is None:
            raise SettingError("sample: needs a checkpoint, and no step before it makes one; put such a step before it")
        rows, prompt = len(self.prompts), TOKENS_PER_PROMPT
        counts = both(
            cost.prefill_counts(config, rows, prompt, hardware),
            cost.decode_counts(config, rows, prompt, self.max_tokens - 1, hardware),
            {"infer.drawn": float(rows * self.max_tokens * config.vocabulary) if self.temperature else 0.0},
            checkpoint_counts(config),
        )
        used = usage(
            counts,
            cost.answer_memory(config, rows, prompt + self.max_tokens),
            hardware,
            cost.ASSUMED,
            flops=self._flops(config, [prompt] * rows, [self.max_tokens - 1] * rows),
            method="roofline of bytes and operations, a fixed part per layer and step, drawing, loading",
        )
        return Prediction(used, sketch)

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        from shoestring import model as room

        model, tokenizer = room.load(need(state, "checkpoint", self.name), device=task.device, progress=watch.progress)
        samples, flops = self.continue_prompts(model, tokenizer, task.seed, watch.progress)
        watch.meter.count(flops=flops)
        with artifact.writing(task.out, self.gives, {"samples": len(samples)}) as folder:
            write_samples(folder / "samples.json", samples)
        return {**state, self.gives: task.out}

    def continue_prompts(
        self, model: Transformer, tokenizer: Tokenizer, seed: int, progress: Progress
    ) -> tuple[list[dict[str, str]], float]:
        """The prompts with their continuations, and the operations they took."""
        unpack_layers(model)
        prompts = [self._tokens(text, tokenizer) for text in self.prompts]
        settings = [
            Sampling(
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                # A small model's context may not hold all that is wished for.
                max_tokens=max(1, min(self.max_tokens, model.config.context - len(prompt))),
                seed=seed + number,
            )
            for number, prompt in enumerate(prompts)
        ]
        made = 0

        def on_token(number: int, token: int) -> None:
            nonlocal made
            made += 1
            progress(f"{made} tokens", made / sum(one.max_tokens for one in settings))

        answers = generate(model, prompts, settings, stop_tokens(tokenizer), on_token)
        texts = [tokenizer.answer(prompt, answer) for prompt, answer in zip(prompts, answers)]
        samples = [{"prompt": prompt, "text": text} for prompt, text in zip(self.prompts, texts)]
        # The token that stops an answer took a step too, though it is not part of it.
        steps = [min(len(answer), one.max_tokens - 1) for answer, one in zip(answers, settings)]
        return samples, self._flops(model.config, [len(prompt) for prompt in prompts], steps)

    def _tokens(self, text: str, tokenizer: Tokenizer) -> list[int]:
        if self.chat:
            return tokenizer.chat_tokens([{"role": "user", "content": text}])
        return tokenizer.prompt(text)

    @staticmethod
    def _flops(config: ModelConfig, prompts: list[int], steps: list[int]) -> float:
        """Of one pass over each prompt, which gives the first token, and of the steps after it."""
        return sum(
            cost.prefill_flops(config, 1, prompt) + cost.decode_total_flops(config, 1, prompt, count)
            for prompt, count in zip(prompts, steps)
        )


def unpack_layers(model: Transformer) -> None:
    """Turn packed layers into dense ones, in place: the same numbers. Decoding would unpack them at every token instead."""
    for name, matrix in list(model.matrices()):
        if matrix.form != "dense":
            put(model, name, to_dense(matrix).requires_grad_(False))


def write_samples(file: Path, samples: list[dict[str, str]]) -> None:
    """As `samples.json`: a list of {"prompt", "text"}."""
    artifact.write_whole(file, to_json(samples) + "\n")
