"""Start from a model that others have trained: the cheapest training is the one that is already paid for.

Training a model of N parameters on D tokens takes about 6 N D operations (arXiv 2001.08361); what follows here (tuning,
pruning, quantization) takes a small part of it. The source may be a checkpoint in the Hugging Face layout, a GGUF file or the
folder of a run; it is written out as any step's checkpoint is, in the source's precision.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from shoestring.architecture import ModelConfig, counts
from shoestring.artifact import checksum, writing
from shoestring.errors import SettingError, ShoestringError
from shoestring.measure import Hardware, predicted_usage
from shoestring.model.checkpoint import load, read_config, stored, write
from shoestring.model.checkpoint.adapters import find_base, is_adapter
from shoestring.model.checkpoint.origin import named, write_origin
from shoestring.model.fetch import CATALOGUE, locate
from shoestring.technique import FileName, Prediction, Sketch, State, Task, Technique, Watch, contents

CONVERTED = 40e6
"""Weights a second that one core reads, unpacks, writes and checks; `model.convert` when calibrated."""


class Pretrained(Technique):
    """Take a pretrained model as the checkpoint: a folder, a GGUF file or a fetched name, written in the Hugging Face layout.

    Nothing is downloaded; `shoestring fetch NAME` does that.
    """

    name: ClassVar[str] = "pretrained"
    room: ClassVar[str] = "model"
    row: ClassVar[str] = ""
    version: ClassVar[int] = 3
    saves: ClassVar[tuple[str, ...]] = ("computation", "energy", "money", "data")
    gives: ClassVar[str] = "checkpoint"

    source: FileName
    """A folder of a checkpoint or a run, a `.gguf` file, or a name that was fetched ("smollm2-135m", "owner/name")."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the weights on disk. "auto" keeps the source's; a GGUF file becomes float16."""

    def outside(self) -> str:
        """A path's contents, or for a fetched name the file that is pinned or the snapshot's revision."""
        try:
            place = locate(self.source)
            base = find_base(place) if is_adapter(place) else None
        except ShoestringError:  # applying it says what is wrong
            return super().outside()
        if Path(self.source).expanduser().exists():  # a folder of that name comes before a name that was fetched
            return contents(place) + ("" if base is None else Pretrained(source=str(base)).outside())
        return CATALOGUE[self.source].sha256 if self.source in CATALOGUE else place.name

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """From the configuration, of the files when they are here, else of the catalogue."""
        config, bits, other = self._shape()
        parameters = counts.parameters(config)
        disk = counts.checkpoint_bytes(config, bits, other)
        usage = predicted_usage(
            seconds=2 + parameters / hardware.figure("model.convert", CONVERTED),
            hardware=hardware,
            # A GGUF file is unpacked to float32 whole.
            peak_memory=parameters * (4 + other / 8),
            method="weights / weights converted a second",
        )
        return Prediction(
            usage,
            sketch.with_(
                model=config,
                vocabulary=config.vocabulary,
                disk_bytes=disk,
                bits_per_weight=bits,
                sparsity=0.0,
                bits_per_byte=None,
            ),
        )

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Read, and write as a checkpoint artifact."""
        path = locate(self.source)
        dtype = self._dtype(stored(path)[0])
        model, tokenizer = load(path, dtype, progress=watch.progress)
        about: dict[str, Any] = {"origin": self._origin(path)}
        watch.progress("writing the checkpoint")
        with writing(task.out, "checkpoint", about) as folder:
            about["facts"] = {**write(model, tokenizer, folder, dtype), "vocabulary": model.config.vocabulary}
            assert model.origin is not None
            # Later steps store what was asked for here; "auto" over float32 beside packed layers stays float32.
            kept = model.origin.dtype if self.dtype == "auto" else dtype
            origin = replace(model.origin, source=named(self.source), dtype=kept)
            write_origin(origin, folder, changed=False, **about["origin"])
        watch.note(f"{self.source}: {counts.parameters(model.config) / 1e6:.1f} M parameters, {next(model.parameters()).dtype}")
        return {**state, "checkpoint": task.out}

    def _shape(self) -> tuple[ModelConfig, float, float]:
        """Configuration, bits per weight of the block matrices and of the rest."""
        try:
            config, (dtype, bits) = read_config(self.source), stored(self.source)
        except SettingError:
            if self.source not in CATALOGUE:
                raise
            config, dtype, bits = CATALOGUE[self.source].config, torch.float16, 16.0
        other = 8.0 * self._dtype(dtype).itemsize
        return config, other if bits == 8 * dtype.itemsize else bits, other

    def _dtype(self, source: torch.dtype) -> torch.dtype:
        return source if self.dtype == "auto" else getattr(torch, self.dtype)

    def _origin(self, path: Path) -> dict[str, Any]:
        known = CATALOGUE.get(self.source)
        origin: dict[str, Any] = {"name": path.name}
        if path.is_file():
            origin |= {"bytes": path.stat().st_size, "sha256": checksum(path)}
        if known is not None:
            origin |= {"package": known.package, "licence": known.licence}
        return origin
