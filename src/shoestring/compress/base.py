"""What the techniques of this room share: load, draw calibration, work on the model in memory, write; and what they refuse."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from shoestring import artifact
from shoestring.architecture import ModelConfig
from shoestring.compress import calibration as drawing
from shoestring.compress import cost, finite
from shoestring.compress.restart import Restart
from shoestring.compress.solution import Solution, install
from shoestring.compress.walk import Live, Method, fast_precision, walk
from shoestring.errors import SettingError
from shoestring.files import to_json
from shoestring.measure import Hardware
from shoestring.model import Transformer, load, write
from shoestring.progress import Progress, showing, silent
from shoestring.technique import FileName, Prediction, Sketch, State, Task, Technique, Watch, need

LENGTH = 512
"""Tokens of a calibration sequence."""

Count = Annotated[int, Field(gt=0)]
Note = Callable[[str], None]
"""Says one line to the person who watches."""


class Compression(Technique):
    """A technique that changes the blocks' matrices of a model; embedding, head and norms are left alone."""

    room: ClassVar[str] = "compress"
    reads: ClassVar[tuple[str, ...]] = ("checkpoint",)
    needs: ClassVar[tuple[str, ...]] = ("unpacked",)
    gives: ClassVar[str] = "checkpoint"
    version: ClassVar[int] = 2

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Compress the newest checkpoint."""
        model, tokenizer = load(need(state, "checkpoint", self.name), device=task.device, progress=watch.progress)
        self.check(model)
        report = self._run(model, state, task, watch, tokenizer)
        kept = {key: value for key, value in report.items() if key not in ("settings", "matrices")}
        about: dict[str, Any] = {"settings": report["settings"], "report": kept}
        with artifact.writing(task.out, "checkpoint", about) as folder:
            about["facts"] = write(model.cpu(), tokenizer, folder)
            artifact.write_whole(folder / "compression.json", to_json(report) + "\n")
        return {**state, "checkpoint": task.out}

    def check(self, model: Transformer) -> None:
        """Refuse, before any work, a model that this technique can't work on.

        Raises:
            SettingError: layers that are packed already; the technique's own conditions.
        """
        refuse_packed(model, self.name)

    def fitted(self, model: Transformer, note: Note) -> Self:
        """The same with those settings filled in that follow from the model; the note says which."""
        return self

    @abstractmethod
    def _run(self, model: Transformer, state: State, task: Task, watch: Watch, tokenizer: Any) -> dict[str, Any]:
        """Call `apply_to` with what the step has at hand."""


class Weights(Compression):
    """A compression that looks at weights alone."""

    def apply_to(
        self,
        model: Transformer,
        calibration_NT: Tensor | None = None,
        progress: Progress | None = None,
        note: Note = silent,
    ) -> dict[str, Any]:
        """Compress a model in memory, in place.

        Args:
            calibration_NT: not needed; taken so that all techniques of the room are called alike.
            progress: told after each matrix; a bar on a terminal when not given.
            note: told what should be known, such as a group size that follows from the model.

        Returns:
            A report: `settings` as they were used, `sparsity`, `bits_per_weight` and, for each matrix, its name and zeros.

        Raises:
            SettingError: a model that does not fit the settings.
            NotFinite: a weight that is NaN or infinite, before or after.
        """
        self.check(model)
        finite.check_model(model, self.name)
        fitted, reports, found = self.fitted(model, note), [], list(model.matrices())
        with torch.no_grad(), showing(progress) as progress:
            for number, (name, matrix) in enumerate(found, 1):
                weight_OI = matrix.weight_rows()
                solution = fitted._solve(weight_OI)
                reports.append({"name": name, "weights": weight_OI.numel(), **solution.report})
                finite.check(f"{self.name}: {name}.", solution.parts, "its weights are too large for what they are stored in")
                install(model, name, solution)
                progress(f"{self.name}: {name}", number / len(found))
        return reported(fitted, model, reports)

    @abstractmethod
    def _solve(self, weight_OI: Tensor) -> Solution:
        """What becomes of one matrix."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """A few passes over the weights."""
        return cost.predict_weights(sketch, hardware, self._bits(sketch), self._sparsity(sketch), self._passes())

    def _bits(self, sketch: Sketch) -> cost.Bits | None:
        return None

    def _sparsity(self, sketch: Sketch) -> float:
        return sketch.sparsity

    def _passes(self) -> float:
        return 1.0

    def _run(self, model: Transformer, state: State, task: Task, watch: Watch, tokenizer: Any) -> dict[str, Any]:
        return self.apply_to(model, progress=watch.progress, note=watch.note)


class Calibrated(Compression):
    """A compression that looks at what the matrices multiply, through the calibration walk.

    Calibration is drawn from the tokens that the recipe has, or from a text of the user's.
    """

    uses: ClassVar[tuple[str, ...]] = ("tokens",)
    version: ClassVar[int] = 3

    calibration: FileName | None = None
    """A text, JSONL or Parquet file, or a folder, to calibrate with; the recipe's training tokens when not given."""
    samples: Count = 32
    """Sequences of calibration."""
    length: Count | None = None
    """Tokens of each; 512, or the model's context where that is less, when not given."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the blocks' products in the walk; auto is bf16 where the device has instructions for it. Solving is in fp32."""

    def apply_to(
        self,
        model: Transformer,
        calibration_NT: Tensor | None = None,
        progress: Progress | None = None,
        note: Note = silent,
        restart: Restart | None = None,
    ) -> dict[str, Any]:
        """Compress a model in memory, in place.

        Args:
            calibration_NT: token numbers, int64, N sequences of T tokens; `calibration_tokens` draws them from a text.
            progress: told after each block; a bar on a terminal when not given.
            note: told what should be known, such as the precision of the walk.
            restart: where restart points are kept.

        Returns:
            A report: `settings` as they were used, `sparsity`, `bits_per_weight` and, for each matrix, its name and relative
            error.

        Raises:
            SettingError: a model that does not fit the settings, or no calibration.
            NotFinite: a weight or an input of a matrix is NaN or infinite.
        """
        self.check(model)
        finite.check_model(model, self.name)
        if calibration_NT is None or calibration_NT.numel() == 0:
            raise SettingError(f"{self.name}: needs calibration tokens (sequences x tokens); give some text of the model's kind")
        if calibration_NT.shape[1] > model.config.context:
            raise SettingError(
                f"{self.name}: calibration sequences of {calibration_NT.shape[1]} tokens are longer than the model attends over "
                f"({model.config.context}); cut them"
            )
        precision = self.precision if self.precision != "auto" else fast_precision(next(model.parameters()).device)
        note(f"{self.name}: calibrating with {calibration_NT.shape[0]} x {calibration_NT.shape[1]} tokens in {precision}")
        fitted = self.fitted(model, note)
        method = fitted._method(note)
        with showing(progress) as progress:
            reports = walk(Live(model), calibration_NT, method, precision=precision, restart=restart, progress=progress)
        return reported(fitted, model, reports)

    def tokens_of_each(self, config: ModelConfig) -> int:
        """Tokens of one calibration sequence.

        Raises:
            SettingError: more than the model attends over.
        """
        if self.length is not None and self.length > config.context:
            raise SettingError(
                f"{self.name}.length: {self.length} tokens are more than the model attends over ({config.context}); set length "
                f"to {config.context} or less"
            )
        return self.length or min(LENGTH, config.context)

    def resolved(self, device: str) -> dict[str, Any]:
        """The precision of the walk, which follows from what the processor has instructions for."""
        return {"precision": fast_precision(torch.device(device))} if self.precision == "auto" else {}

    @abstractmethod
    def _method(self, note: Note) -> Method:
        """What this technique does with a group of matrices."""

    def _run(self, model: Transformer, state: State, task: Task, watch: Watch, tokenizer: Any) -> dict[str, Any]:
        length = self.tokens_of_each(model.config)
        tokens_NT = drawing.draw(
            tokenizer, self.samples, length, task.seed, self.name, _path(self.calibration), state.get("tokens"), watch.note
        )
        restart = Restart(task.scratch / "walk", note=watch.note)
        report = self.apply_to(model, tokens_NT, watch.progress, watch.note, restart)
        walked = cost.walk_flops(model.config, tokens_NT.shape[0], tokens_NT.shape[1], self._grams())
        watch.meter.count(flops=walked + cost.solver_flops(model.config, self._grids()))
        return report

    def _grams(self) -> bool:
        """Whether the walk multiplies Gram matrices."""
        return True

    def _grids(self) -> int:
        """How often a solver goes through the columns of each matrix."""
        return 0


def refuse_packed(model: Transformer, who: str) -> None:
    """Raises:
    SettingError: layers are quantized already, so their weights can't be changed.
    """
    packed = [name for name, matrix in model.matrices() if matrix.form != "dense"]
    if packed:
        raise SettingError(
            f"{who}: {len(packed)} matrices are quantized already ({packed[0]} ...); put this step before the one that "
            "quantized them, or start from the model as it was"
        )


def reported(used: Compression, model: Transformer, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """A technique's report: its settings, totals of the model, the mean error over matrices, and each matrix."""
    errors = [report["error"] for report in reports if "error" in report]
    weights = sum(report["weights"] for report in reports)
    bits = sum(matrix.bits_per_weight * report["weights"] for (_, matrix), report in zip(model.matrices(), reports))
    return {
        "settings": used.model_dump(mode="json"),
        "sparsity": sum(report["zeros"] for report in reports) / weights,
        "bits_per_weight": bits / weights,
        "error": sum(errors) / len(errors) if errors else None,
        "matrices": reports,
    }


def input_widths(config: ModelConfig) -> dict[str, int]:
    """Inputs of each matrix, by name."""
    return {slot.name: slot.inputs for slot in config.matrices()}


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
