"""Adapters on disk in PEFT's form: `adapter_config.json` and `adapter_model.safetensors`, with Hugging Face's module names.

PEFT opens what is written here on the model's Hugging Face export, and the other way round. A model whose matrices that
export joins into one (GPT-2's queries, keys and values), or that no family holds, gets our own names: only Shoestring opens it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shoestring.artifact import write_whole
from shoestring.errors import FileError, file_error
from shoestring.model import ModelConfig, Transformer, linears
from shoestring.model.checkpoint.families import writing_family
from shoestring.tune.adapter import LoRALinear, adapters, add_lora

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
UNSUPPORTED = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
    "target_parameters",
    "lora_bias",
)


def save_adapter(model: Transformer, folder: Path, base: str = "") -> None:
    """Write the adapters of a model.

    Args:
        base: name or path of the model that they belong to, for PEFT's configuration.

    Raises:
        FileError: when the disk is full or the place can't be written.
        ValueError: the model has no adapters.
    """
    from safetensors.torch import save

    found = adapters(model)
    if not found:
        raise ValueError("the model has no adapters")
    names = _theirs(model.config, found)
    tensors: dict[str, Tensor] = {}
    for ours, layer in found.items():
        tensors[f"{PREFIX}{names[ours]}.lora_A.weight"] = layer.first.detach().float().cpu().contiguous()
        tensors[f"{PREFIX}{names[ours]}.lora_B.weight"] = layer.second.detach().float().cpu().contiguous()
    shape = next(iter(found.values())).shape
    record = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "lora_dropout": shape.dropout,
        "use_rslora": shape.rank_stabilised,
        "target_modules": sorted({name.rpartition(".")[2] for name in names.values()}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_whole(Path(folder) / CONFIG, json.dumps(record, indent=1) + "\n")
    write_whole(Path(folder) / WEIGHTS, save(tensors, {"format": "pt"}))


def load_adapter(model: Transformer, folder: Path | str) -> dict[str, LoRALinear]:
    """Put the adapters of a PEFT folder beside the matrices of a model.

    Raises:
        FileError: files that are missing or broken, settings that are not supported, tensors that do not fit the model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    record = _read_config(folder / CONFIG)
    try:
        tensors = load((folder / WEIGHTS).read_bytes())
    except OSError as error:
        raise file_error(folder / WEIGHTS, error) from error
    except SafetensorError as error:
        raise FileError(f"{folder / WEIGHTS}: not a safetensors file ({error}); save the adapter again") from error
    every = {f"blocks.{i}.{name}": m for i, block in enumerate(model.blocks) for name, m in linears(block).items()}
    theirs = {their: our for our, their in _theirs(model.config, every).items()}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, mark, part = key.removeprefix(PREFIX).rpartition(".lora_")
        if not mark or module not in theirs or part not in ("A.weight", "B.weight"):
            raise FileError(f"{folder / WEIGHTS}: {key} belongs to no matrix of this model; name the model it was trained on")
        parts.setdefault(theirs[module], {})[part[0]] = tensor
    targets = sorted({name.split(".", 2)[2] for name in parts})
    found = add_lora(
        model, record["r"], record["lora_alpha"], targets, record.get("lora_dropout", 0.0), bool(record.get("use_rslora"))
    )
    for name, layer in found.items():
        for letter, parameter in (("A", layer.first), ("B", layer.second)):
            tensor = parts.get(name, {}).get(letter)
            if tensor is None or tensor.shape != parameter.shape:
                shape = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
                raise FileError(f"{folder / WEIGHTS}: lora_{letter} of {name} is {shape}, expected {tuple(parameter.shape)}")
            with torch.no_grad():
                parameter.copy_(tensor)
    return found


def _theirs(config: ModelConfig, ours: Any) -> dict[str, str]:
    """Hugging Face's name of each matrix, or our own where the export has no module for it."""
    family = writing_family(config, False)
    names = family.names(config)
    joined = any(".c_attn." in name for name in names.values())
    return {name: name if joined else names.get(name, name) for name in ours}


def _read_config(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise file_error(file, error) from error
    except ValueError as error:
        raise FileError(f"{file}: not JSON ({error}); save the adapter again") from error
    if not isinstance(record, dict) or record.get("peft_type") != "LORA":
        kind = record.get("peft_type") if isinstance(record, dict) else None
        raise FileError(f"{file}: peft_type is {kind!r}; only LORA adapters are read")
    for key in UNSUPPORTED:
        if record.get(key):
            raise FileError(f"{file}: {key} is {record[key]!r}; adapters with it are not supported")
    if record.get("bias", "none") != "none":
        raise FileError(f"{file}: bias is {record['bias']!r}; only adapters without biases are supported")
    rank, alpha = record.get("r"), record.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise FileError(f"{file}: r and lora_alpha must be numbers, got {rank!r} and {alpha!r}")
    return record
