"""What an `adapter_config.json` of PEFT's asks for: each setting is honoured, known to change nothing, or refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring.errors import FileError, shown
from shoestring.files import read_object

CONFIG = "adapter_config.json"
MASKED = "shoestring_zeros_kept"
"""Our own setting: modules whose change is left out where the base's weight is zero. PEFT can't do that, and warns."""
ADVICE = "docs/tune.md lists the settings that are read"

READ = {
    *("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules"),
    *("layers_to_transform", "exclude_modules", "base_model_name_or_path", "revision", MASKED),
}
"""Settings that are honoured."""
INERT = {
    *("auto_mapping", "peft_version", "inference_mode", "megatron_core", "qalora_group_size", "runtime_config", "eva_config"),
}
"""Settings that change nothing once an adapter is trained, or nothing without another one, which is refused."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "task_type": ("CAUSAL_LM",),
    "bias": ("none",),
    "fan_in_fan_out": (True,),  # PEFT itself goes by the kind of layer
    "layers_pattern": ("layers", ["layers"], "h", ["h"]),
    # The others (pissa, olora, corda, loftq, ...) change the base's own weights.
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),
}
"""Settings at the values that ask for nothing beyond LoRA."""

LARGEST = 1e9
"""Of a rank or an alpha."""

_PATTERN = re.compile(r"\^?(?:\w|\.|\\\.|\\d\+?)+")
"""Patterns of module names that are read: names, where `\\d+` stands for a number. Others could take for ever to match."""


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The settings that are honoured."""

    file: Path
    base: str
    """Name or path of the model that is changed; "" when none is named."""
    revision: str
    ranks: tuple[int, ...]
    """The usual one first, then those of some modules."""
    alpha: float
    alphas: Mapping[str, float]
    """Those of modules whose names match a pattern; the first match counts."""
    dropout: float
    rank_stabilised: bool
    targets: tuple[str, ...] | None
    """Modules by the last parts of their names; None where a pattern names them, and the tensors are taken as they are."""
    excluded: tuple[str, ...]
    layers: tuple[int, ...] | None
    masked: tuple[str, ...]

    def alpha_of(self, module: str) -> float:
        """What the change of a module is scaled by, as PEFT finds it."""
        return next((alpha for key, alpha in self.alphas.items() if re.match(rf"(.*\.)?({key})$", module)), self.alpha)

    def names(self, module: str, layer: int) -> bool | None:
        """Whether a module in a layer is to be changed; None where that can't be told."""
        if any(ends(module, name) for name in self.excluded) or (self.layers is not None and layer not in self.layers):
            return False
        return None if self.targets is None else any(ends(module, name) for name in self.targets)


def ends(module: str, name: str) -> bool:
    """Whether `name` is a module's name, or its last parts."""
    return module == name or module.endswith(f".{name}")


def read_settings(folder: Path) -> AdapterSettings:
    """Read the settings of an adapter.

    Raises:
        FileError: no settings of a LoRA adapter, one that is not read, or a value that does not fit: named, with its value.
    """
    file = Path(folder) / CONFIG
    record = read_object(file, "save the adapter again")
    if record.get("peft_type") != "LORA":
        raise FileError(f"{file}: peft_type is {shown(record.get('peft_type'))}; only LORA adapters are read")
    for key, value in record.items():
        empty = value is None or value is False or value in ("", [], {})
        if not (key in READ or key in INERT or empty or value in NEUTRAL.get(key, ())):
            raise FileError(f"{file}: {shown(key, quote=False)} is {shown(value)}; adapters with it are not read ({ADVICE})")

    def read(key: str, what: str, fits: Callable[[Any], bool], default: Any) -> Any:
        value = record.get(key)
        if value is None or (value is False and default is not False):
            return default
        if not fits(value):
            raise FileError(f"{file}: {key} must be {what}, got {shown(value)}; save the adapter again")
        return value

    names, layers = (
        read("target_modules", "names of modules", _texts, ""),
        read("layers_to_transform", "numbers of layers", _places, []),
    )
    return AdapterSettings(
        file=file,
        base=read("base_model_name_or_path", "the name or path of a model", _text, ""),
        revision=read("revision", "a text", _text, ""),
        ranks=(read("r", "a whole number above 0", _rank, 8), *read("rank_pattern", "ranks by module", _ranks, {}).values()),
        alpha=read("lora_alpha", "a number", _number, 8),
        alphas=read("alpha_pattern", "numbers by names of modules, in which \\d+ may stand for a layer", _alphas, {}),
        dropout=read("lora_dropout", "a number from 0 to 1", lambda value: _number(value) and 0 <= value <= 1, 0.0),
        rank_stabilised=read("use_rslora", "true or false", lambda value: isinstance(value, bool), False),
        targets=None if isinstance(names, str) else tuple(names),
        excluded=tuple(read("exclude_modules", "a list of names", _list_of_texts, [])),
        layers=(layers,) if isinstance(layers, int) else tuple(layers) or None,
        masked=tuple(read(MASKED, "a list of names", _list_of_texts, [])),
    )


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _texts(value: Any) -> bool:
    return _text(value) or _list_of_texts(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _rank(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST


def _ranks(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_rank, value.values()))


def _alphas(value: Any) -> bool:
    return isinstance(value, dict) and all(_PATTERN.fullmatch(key) for key in value) and all(map(_number, value.values()))


def _places(value: Any) -> bool:
    return type(value) is int or (isinstance(value, list) and all(type(each) is int for each in value))
