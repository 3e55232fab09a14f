"""What a family of checkpoints is: how its `config.json` and its tensors' names map to ours, both ways, as one table.

A name is a module's dotted path; the leaf behind it (`weight`, `bias`, `weight_packed`, ...) is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from shoestring.architecture import Flat, ModelConfig
from shoestring.architecture.settings import LARGEST
from shoestring.errors import FileError, shown


@dataclass(frozen=True, slots=True)
class Entry:
    """One module of theirs, and which of ours it holds.

    Attributes:
        ours: names of our slots, within a block; several when theirs holds them in one matrix, their outputs in this order.
        theirs: within a layer.
        transposed: theirs is stored as (inputs, outputs).
    """

    ours: tuple[str, ...]
    theirs: str
    transposed: bool = False


def entry(ours: str, theirs: str, transposed: bool = False) -> Entry:
    """An entry; `ours` may name several slots, with commas."""
    return Entry(tuple(ours.split(", ")), theirs, transposed)


@dataclass(frozen=True, slots=True)
class Family:
    """Both ways between one family of Hugging Face checkpoints and ours.

    Attributes:
        architectures: names in `config.json` that this family reads; the first is the one it writes.
        read_config: `Reading` of a `config.json` -> our configuration.
        write_config: our configuration -> the family's part of `config.json`, which need not say all of it: what is not said is
            found by reading it back (`holds`). None when the family can't have this shape at all.
        outer: the modules outside the layers.
        inner: those of a layer.
        layer: where a layer's stand; {} is its number.
        packs: packed matrices have a form in it.
        zero_biases: its modules have biases that ours lack: zeros are written, and only zeros are read.
        prefix: files saved from the bare model lack it, on all modules but the head's.
        unused: endings of tensor names that carry nothing and are left unread.
    """

    architectures: tuple[str, ...]
    read_config: Callable[[Reading], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any] | None]
    outer: tuple[Entry, ...]
    inner: tuple[Entry, ...]
    layer: str = "model.layers.{}"
    packs: bool = True
    zero_biases: bool = False
    prefix: str = ""
    unused: tuple[str, ...] = ("rotary_emb.inv_freq",)

    def entries(self, config: ModelConfig) -> Iterator[Entry]:
        """All modules of a model by their whole names."""
        yield from self.outer
        for number in range(len(config.layers)):
            place = self.layer.format(number)
            for inside in self.inner:
                ours = tuple(f"blocks.{number}.{name}" for name in inside.ours)
                yield Entry(ours, f"{place}.{inside.theirs}", inside.transposed)

    def names(self, config: ModelConfig) -> dict[str, str]:
        """Our modules' names -> theirs, of those that stand alone; the others keep ours."""
        return {each.ours[0]: each.theirs for each in self.entries(config) if len(each.ours) == 1}


def holds(family: Family, config: ModelConfig, packed: bool = False) -> bool:
    """What is written is what would be read: a setting that a format can't say refuses, never vanishes."""
    written = None if packed and not family.packs else family.write_config(config)
    if written is None:
        return False
    try:
        return family.read_config(Reading(written, Path("config.json"))) == config
    except FileError:
        return False


class Reading:
    """A `config.json`, or the metadata of a GGUF file, being read.

    An entry that is missing, of another type or out of bounds is refused with the file's name, the key, its value and what is
    allowed; null counts as missing.
    """

    def __init__(self, record: Mapping[str, Any], file: Path, prefix: str = "") -> None:
        """`prefix`: what an error puts before a key, such as "rope_scaling."."""
        self.record, self.file, self.prefix = record, file, prefix

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
            raise FileError(f"{self.file}: {self.prefix}{key} is missing; the file is not a whole model configuration")
        return self.record[key]

    def count(self, key: str, otherwise: int | None = None, most: int = LARGEST) -> int:
        """A whole number from 1 to `most`; needed when `otherwise` is None."""
        value = self.need(key) if otherwise is None else self.get(key, otherwise)
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(key, value, f"it must be a whole number from 1 to {most:,}")
        return int(value)

    def number(self, key: str, otherwise: float | None = None) -> float:
        """A finite number above 0; needed when `otherwise` is None."""
        value = self.need(key) if otherwise is None else self.get(key, otherwise)
        if type(value) not in (int, float) or not 0 < value <= 1e30:
            self.refuse(key, value, "it must be a number above 0")
        return float(value)

    def flag(self, key: str, otherwise: bool) -> bool:
        """True or false."""
        value = self.get(key, otherwise)
        if type(value) is not bool:
            self.refuse(key, value, "it must be true or false")
        return bool(value)

    def text(self, key: str, otherwise: str | None = None) -> str:
        """A text; needed when `otherwise` is None."""
        value = self.need(key) if otherwise is None else self.get(key, otherwise)
        if type(value) is not str:
            self.refuse(key, value, "it must be a text")
        return str(value)

    def inside(self, key: str) -> Reading:
        """An entry that is an object itself, an empty one when it is missing."""
        value = self.get(key, {})
        if type(value) is not dict:
            self.refuse(key, value, "it must be an object")
        return Reading(value, self.file, f"{self.prefix}{key}.")

    def refuse(self, key: str, value: Any, wanted: str) -> NoReturn:
        """Raises:
        FileError: names the file, the key, its value and what it must be.
        """
        raise FileError(f"{self.file}: {self.prefix}{key} is {shown(value)}; {wanted}")

    def only(self, key: str, allowed: Any, otherwise: Any = None, advice: str = "") -> None:
        """Refuse a model that needs what ours doesn't do: `key` must be `allowed`, or missing when that means the same.

        Raises:
            FileError: the key, its value, and what is allowed.
        """
        value = self.get(key, allowed if otherwise is None else otherwise)
        if value != allowed:
            self.refuse(key, value, advice or f"shoestring reads models with {allowed!r} only")

    def fill(self, /, **settings: Any) -> ModelConfig:
        """Our configuration.

        Raises:
            FileError: when values contradict each other.
        """
        try:
            return ModelConfig(**settings)
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, e['loc']))} is {shown(e['input'])}; {e['msg'][:1].lower()}{e['msg'][1:]}"
                if e["loc"]
                else e["msg"].removeprefix("Value error, ")
                for e in error.errors()[:3]
            ]
            raise FileError(f"{self.file}: not a model that shoestring can build: {'; '.join(faults)}") from error

    def rope(self) -> dict[str, Any]:
        """Our rotary settings, from where transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters) puts them.

        Raises:
            FileError: a scaling other than Llama 3's, settings by kind of layer, or entries that are missing or mistyped.
        """
        found: dict[str, Any] = {"rope_base": self.number("rope_theta", 10_000.0)}
        newer, older = self.inside("rope_parameters"), self.inside("rope_scaling")
        rope = Reading({**older.record, **newer.record}, self.file, (newer if newer.record else older).prefix)
        for key, value in rope.record.items():
            if isinstance(value, dict):
                rope.refuse(key, value, "rotary settings by kind of layer are not supported")
        found["rope_base"] = rope.number("rope_theta", found["rope_base"])
        kind = rope.text("rope_type", rope.text("type", "default"))
        if kind == "llama3":
            found["rope_scaling"] = {
                "factor": rope.number("factor"),
                "low_frequency": rope.number("low_freq_factor"),
                "high_frequency": rope.number("high_freq_factor"),
                "original_context": rope.count("original_max_position_embeddings"),
            }
        elif kind != "default":
            raise FileError(f"{self.file}: rope scaling {shown(kind)} is not supported; allowed: default, llama3")
        if rope.number("partial_rotary_factor", self.number("partial_rotary_factor", 1.0)) != 1.0:
            raise FileError(f"{self.file}: partial_rotary_factor other than 1 is not supported")
        return found


def write_rope(config: Flat) -> dict[str, Any]:
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
