"""Adapters on disk in PEFT's form: `adapter_config.json` and `adapter_model.safetensors`, with Hugging Face's module names.

A folder with these two, and without weights of its own, counts as a model wherever a model is read: its base is loaded, and the
change of each matrix, s B A (arXiv 2106.09685), is added to it in float32.

PEFT opens what is written here on the model's Hugging Face export. A model whose matrices that export joins into one (GPT-2's
queries, keys and values), or that no family holds, gets our own names: only Shoestring opens it.

K inputs, N outputs, R rank.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.artifact import write_whole
from shoestring.errors import FileError, ShoestringError, shown
from shoestring.files import to_json
from shoestring.model.checkpoint import tensors as storage
from shoestring.model.checkpoint.adapter_settings import CONFIG, MASKED, AdapterSettings, ends, read_settings
from shoestring.model.checkpoint.families import writing_family
from shoestring.model.checkpoint.header import Stored, read_header
from shoestring.model.fetch import locate
from shoestring.model.transformer import Transformer

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one matrix: scale * second @ first."""

    first_RK: Tensor
    second_NR: Tensor
    alpha: float
    rank_stabilised: bool = False
    masked: bool = False
    """Left out where the base's weight is zero."""

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return int(self.first_RK.shape[0])

    @property
    def scale(self) -> float:
        """alpha / rank, or alpha / sqrt(rank) in rsLoRA (arXiv 2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def added_to(self, weight_NK: Tensor) -> Tensor:
        """The changed matrix, summed in float32, in the dtype it comes in."""
        change_NK = (self.second_NR.float() @ self.first_RK.float()).to(weight_NK.device) * self.scale
        if self.masked:
            change_NK *= weight_NK != 0
        return (weight_NK.float() + change_NK).to(weight_NK.dtype)


# ------------------------------------------------------------ the base


def is_adapter(path: Path) -> bool:
    """Whether a folder is an adapter, not a checkpoint.

    Raises:
        FileError: it holds both, so that it can't be told which is meant.
    """
    if not (path / CONFIG).is_file():
        return False
    if any((path / name).exists() for name in (storage.WEIGHTS, storage.INDEX)):
        raise FileError(f"{path}: holds a whole model and an adapter; move {CONFIG} and {WEIGHTS} into a folder of their own")
    return True


def find_base(folder: Path) -> str | Path:
    """The base model of an adapter, as `load` takes it: a folder or file beside the adapter, a path, or a fetched name.

    Raises:
        FileError: the adapter names none, one that is not here, or itself.
    """
    base = _located(read_settings(folder))
    whole(base, [folder.resolve()])
    return base


def whole(source: str | Path, seen: Sequence[Path] = ()) -> Path:
    """Where the configuration and the weights lie that a source is read from: itself, or an adapter's base.

    Raises:
        SettingError, FileError: as `locate` and `find_base`.
    """
    path = locate(source)
    if not is_adapter(path):
        return path
    if path.resolve() in seen:
        raise FileError(f"{path / CONFIG}: its base model is itself, or leads back to it; name a whole model")
    return whole(_located(read_settings(path)), [*seen, path.resolve()])


def _located(settings: AdapterSettings) -> str | Path:
    file, name = settings.file, settings.base
    advice = "write its folder's path into base_model_name_or_path, or: shoestring tune merge ADAPTER OUT --base MODEL"
    if not name:
        raise FileError(f"{file}: names no base model; {advice}")
    try:
        beside = file.parent / name
        source = beside if beside.is_dir() or (beside.is_file() and beside.suffix == ".gguf") else name
        revision = locate(source).name
    except (ShoestringError, OSError) as error:  # OSError: a name longer than a path may be
        fetch = "shoestring fetch" in str(error) and f"run: shoestring fetch {shown(name, quote=False)}; or "
        raise FileError(f"{file}: its base model {shown(name)} is not on this machine; {fetch or ''}{advice}") from error
    if settings.revision not in ("", "main", revision):
        raise FileError(f"{file}: needs revision {shown(settings.revision)} of {shown(name)}, which is not here; {advice}")
    return source


# ------------------------------------------------------------ in


def read_adapter(folder: Path, model: Transformer) -> tuple[dict[str, Change], AdapterSettings]:
    """The change of each matrix of a model, by our names, and the settings.

    Raises:
        FileError: files that are missing or damaged, settings that are not read, tensors that do not fit the model or
            hold NaN or infinity: each named.
    """
    settings, file = read_settings(folder), folder / WEIGHTS
    if not file.exists() and (folder / "adapter_model.bin").exists():
        raise FileError(
            f"{folder / 'adapter_model.bin'}: pickled weights can run code and are never loaded; save it as {WEIGHTS}"
        )
    stored, modules = read_header(file), _modules(model)
    found: dict[str, dict[str, str]] = {}
    for key in stored:
        module, mark, part = key.removeprefix(PREFIX).rpartition(".lora_")
        if not mark or module not in modules or part not in ("A.weight", "B.weight"):
            raise FileError(
                f"{file}: {shown(key)} belongs to no matrix of this model's blocks, and nothing else is read; name the model it "
                "was trained on"
            )
        found.setdefault(module, {})[part[0]] = key
    _compare(set(found), modules, settings, file)
    for module, keys in found.items():
        layers = [model.get_submodule(name) for name in modules[module]]
        _check_shapes(module, {part: stored[key] for part, key in keys.items()}, layers, settings.ranks, file)
    tensors = storage.read_file(file)
    for key, tensor in tensors.items():
        storage.must_be_finite(tensor, key, file)
    changes: dict[str, Change] = {}
    for module, keys in found.items():
        seconds = tensors[keys["B"]].chunk(len(modules[module]))
        for name, second in zip(modules[module], seconds, strict=True):
            alpha, masked = settings.alpha_of(module), module in settings.masked
            changes[name] = Change(tensors[keys["A"]], second, alpha, settings.rank_stabilised, masked)
    return changes, settings


def merge_adapter(model: Transformer, folder: Path) -> int:
    """Add an adapter's changes to the matrices of a model, in place; how many were changed.

    Raises:
        FileError: as `read_adapter`; a packed matrix.
    """
    changes, settings = read_adapter(folder, model)
    for name, change in changes.items():
        layer: Any = model.get_submodule(name)
        if layer.form != "dense":
            raise FileError(
                f"{settings.file}: its base model is quantized ({name} is packed), and merging would unpack it; name the model "
                "as it was before, or keep the adapter beside it with shoestring.tune.load_adapter"
            )
        with torch.no_grad():
            layer.weight.copy_(change.added_to(layer.weight))
    return len(changes)


def _modules(model: Transformer) -> dict[str, list[str]]:
    """Modules as an adapter may name them -> our matrices: our own names, and the family's, joined ones too."""
    ours = [name for name, _ in model.matrices()]
    found = {name: [name] for name in ours}
    for each in writing_family(model.config, False).entries(model.config):
        if set(each.ours) <= set(ours):
            found[each.theirs] = list(each.ours)
    return found


def _compare(found: set[str], modules: Mapping[str, list[str]], settings: AdapterSettings, file: Path) -> None:
    """Refuse tensors of modules that the settings leave out, and modules that they name without tensors."""
    if not found:
        raise FileError(f"{file}: holds no tensors; save the adapter again")
    for target in settings.targets or ():
        if not any(ends(module, target) for module in modules):
            raise FileError(f"{settings.file}: target_modules names {shown(target)}, which is no matrix of this model's blocks")
    for module, ours in modules.items():
        named = settings.names(module, int(ours[0].split(".")[1]))
        if named is not None and named != (module in found):
            wrong = f"lacks the tensors of {module}, which" if named else f"holds tensors of {module}, which is not what"
            raise FileError(f"{file}: {wrong} {CONFIG} names to be changed; save the adapter again")


def _check_shapes(module: str, parts: Mapping[str, Stored], layers: list[Any], ranks: tuple[int, ...], file: Path) -> None:
    inputs, outputs = layers[0].in_features, sum(layer.out_features for layer in layers)
    for part in "AB":
        if part not in parts:
            raise FileError(f"{file}: lora_{part} of {module} is missing; save the adapter again")
        if not parts[part].dtype.is_floating_point or parts[part].dtype.itemsize < 2:
            raise FileError(f"{file}: lora_{part} of {module} is stored as {parts[part].dtype}; save it as 16- or 32-bit floats")
    rank = next((rank for rank in ranks if parts["A"].shape == (rank, inputs)), ranks[0])
    for part, expected in (("A", (rank, inputs)), ("B", (outputs, rank))):
        if parts[part].shape != expected:
            raise FileError(
                f"{file}: lora_{part} of {module} is of shape {shown(parts[part].shape)}, expected {expected}; name the model it "
                "was trained on"
            )


# ------------------------------------------------------------ out


def write_adapter(changes: Mapping[str, Change], config: ModelConfig, folder: Path, base: str = "", dropout: float = 0.0) -> None:
    """Write the changes of a model's matrices.

    Args:
        changes: by our names.
        config: of the model, whose family gives the modules' names.
        base: name or path of the model that they belong to; "" where it has no lasting one.

    Raises:
        FileError: when the disk is full or the place can't be written.
    """
    from safetensors.torch import save

    names = _theirs(config, changes)
    tensors: dict[str, Tensor] = {}
    for ours, change in changes.items():
        tensors[f"{PREFIX}{names[ours]}.lora_A.weight"] = change.first_RK.detach().float().cpu().contiguous()
        tensors[f"{PREFIX}{names[ours]}.lora_B.weight"] = change.second_NR.detach().float().cpu().contiguous()
    [(rank, _)] = Counter(change.rank for change in changes.values()).most_common(1)
    [(alpha, _)] = Counter(change.alpha for change in changes.values()).most_common(1)
    record = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {names[ours]: c.rank for ours, c in changes.items() if c.rank != rank},
        "alpha_pattern": {names[ours]: c.alpha for ours, c in changes.items() if c.alpha != alpha},
        "lora_dropout": dropout,
        "use_rslora": next(iter(changes.values())).rank_stabilised,
        "target_modules": sorted(_short(names, len(config.layers))),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    masked = sorted(names[ours] for ours, change in changes.items() if change.masked)
    write_whole(Path(folder) / CONFIG, to_json(record | ({MASKED: masked} if masked else {})) + "\n")
    write_whole(Path(folder) / WEIGHTS, save(tensors, {"format": "pt"}))


def _short(names: Mapping[str, str], layers: int) -> set[str]:
    """The last parts of modules' names, where they mean the same in all layers; else the whole names."""
    inside = {ours.split(".", 2)[2] for ours in names}
    return {name.rpartition(".")[2] if len(names) == layers * len(inside) else name for name in names.values()}


def _theirs(config: ModelConfig, ours: Mapping[str, Any]) -> dict[str, str]:
    """Hugging Face's name of each matrix, or our own where the export has no module for it."""
    family = writing_family(config, False)
    names = {} if any(len(each.ours) > 1 for each in family.inner) else family.names(config)
    return {name: names.get(name, name) for name in ours}
