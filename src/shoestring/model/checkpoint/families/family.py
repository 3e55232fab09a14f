"""What a family of checkpoints is: how its `config.json` and its tensors' names map to ours, both ways.

Most families differ from ours in names alone. A name is a module's dotted path; the leaf behind it (`weight`, `bias`,
`weight_packed`, ...) is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from shoestring.errors import FileError
from shoestring.model.config import ModelConfig, RopeScaling

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Family:
    """Both ways between one family of Hugging Face checkpoints and ours.

    Attributes:
        architectures: names in `config.json` that this family reads; the first is the one it writes.
        read_config: `Reading` of a `config.json` -> our configuration.
        write_config: our configuration -> the family's part of `config.json`.
        holds: whether the family can express a configuration, its matrices packed or not.
        names: our module names -> theirs.
        read_tensors, write_tensors: where more than names differ: reshape before, or after, names are mapped. The
            tensors are under their names.
        unused: endings of tensor names that carry nothing and are left unread.
    """

    architectures: tuple[str, ...]
    read_config: Callable[[Reading], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    holds: Callable[[ModelConfig, bool], bool]
    names: Callable[[ModelConfig], dict[str, str]]
    read_tensors: Callable[[Tensors, ModelConfig, Path], Tensors] = lambda tensors, config, file: tensors
    write_tensors: Callable[[Tensors, ModelConfig], Tensors] = lambda tensors, config: tensors
    unused: tuple[str, ...] = ("rotary_emb.inv_freq",)


class Reading:
    """A `config.json` being read: missing and unsupported entries are told with the file's name and the key."""

    def __init__(self, record: dict[str, Any], file: Path) -> None:
        self.record, self.file = record, file

    def get(self, key: str, otherwise: Any = None) -> Any:
        """An entry, or `otherwise` when it is missing or null."""
        value = self.record.get(key)
        return otherwise if value is None else value

    def need(self, key: str) -> Any:
        """An entry.

        Raises:
            FileError: when it is missing.
        """
        if self.record.get(key) is None:
            raise FileError(f"{self.file}: {key} is missing; the file is not a whole model configuration")
        return self.record[key]

    def only(self, key: str, allowed: Any, otherwise: Any = None) -> None:
        """Refuse a model that needs what ours doesn't do: `key` must be `allowed`, or missing when that means the same.

        Raises:
            FileError: the key, its value, and what is allowed.
        """
        value = self.get(key, allowed if otherwise is None else otherwise)
        if value != allowed:
            raise FileError(f"{self.file}: {key} is {value!r}; shoestring reads models with {allowed!r} only")

    def fill(self, **settings: Any) -> ModelConfig:
        """Our configuration.

        Raises:
            FileError: when values contradict each other.
        """
        try:
            return ModelConfig(**settings)
        except ValidationError as error:
            said = [
                ".".join([*map(str, e["loc"]), ""]).replace(".", ": ") + e["msg"].removeprefix("Value error, ")
                for e in error.errors()
            ]
            raise FileError(f"{self.file}: not a model that shoestring can build: {'; '.join(said)}") from error

    def rope(self) -> dict[str, Any]:
        """Our rotary settings, from where transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters) puts them.

        Raises:
            FileError: a scaling other than Llama 3's.
        """
        parameters = {**self.get("rope_scaling", {}), **self.get("rope_parameters", {})}
        found: dict[str, Any] = {"rope_base": float(parameters.get("rope_theta", self.get("rope_theta", 10_000.0)))}
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind == "llama3":
            found["rope_scaling"] = RopeScaling(
                factor=parameters["factor"],
                low_frequency=parameters["low_freq_factor"],
                high_frequency=parameters["high_freq_factor"],
                original_context=parameters["original_max_position_embeddings"],
            )
        elif kind != "default":
            raise FileError(f"{self.file}: rope scaling {kind!r} is not supported; allowed: default, llama3")
        if float(parameters.get("partial_rotary_factor", self.get("partial_rotary_factor", 1.0))) != 1.0:
            raise FileError(f"{self.file}: partial_rotary_factor other than 1 is not supported")
        return found


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """The rotary settings where transformers 4 and where transformers 5 look for them."""
    if config.rope_scaling is None:
        return {"rope_theta": config.rope_base, "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base}}
    scaling = {
        "rope_type": "llama3",
        "factor": config.rope_scaling.factor,
        "low_freq_factor": config.rope_scaling.low_frequency,
        "high_freq_factor": config.rope_scaling.high_frequency,
        "original_max_position_embeddings": config.rope_scaling.original_context,
    }
    return {
        "rope_theta": config.rope_base,
        "rope_scaling": scaling,
        "rope_parameters": {**scaling, "rope_theta": config.rope_base},
    }
