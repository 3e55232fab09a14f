"""compressed-tensors' `quantization_config`, both ways: what llm-compressor writes and vLLM reads, weights of integers packed.

Its targets are "Linear" for all, a module's full name, or "re:" with an expression; `ignore` lists the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from shoestring.errors import FileError
from shoestring.model.linear import PackedLinear

ADVICE = "allowed: compressed-tensors in the pack-quantized format, weights of 2 to 8 bits per group or channel"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How some modules' weights are packed."""

    bits: int
    symmetric: bool
    targets: tuple[str, ...]

    def names(self, module: str) -> bool:
        """Whether the scheme is for a module (in their names), given that the module is packed."""
        return any(
            target == "Linear" or target == module or (target.startswith("re:") and re.match(target[3:], module))
            for target in self.targets
        )


def read_schemes(config: Mapping[str, Any], file: Path) -> tuple[Scheme, ...]:
    """The schemes of a `config.json`, none when it isn't quantized.

    Raises:
        FileError: another method or format, quantized activations, sparse storage: each named.
    """
    found = config.get("quantization_config") or config.get("compression_config")
    if not found:
        return ()
    method = found.get("quant_method", "compressed-tensors")
    if method != "compressed-tensors":
        raise FileError(f"{file}: quantization_config.quant_method is {method!r}; {ADVICE}")
    sparse = (found.get("sparsity_config") or {}).get("format", "dense")
    for what, value in (("sparsity_config.format", sparse), ("kv_cache_scheme", found.get("kv_cache_scheme") or "dense")):
        if value != "dense":
            raise FileError(f"{file}: quantization_config.{what} is {value!r}; {ADVICE}")
    if (found.get("transform_config") or {}).get("config_groups"):
        raise FileError(f"{file}: quantization_config.transform_config (rotations) is not supported; {ADVICE}")
    return tuple(_scheme(name, group, found, file) for name, group in (found.get("config_groups") or {}).items())


def packed_linear(module: str, leaves: Mapping[str, Tensor], schemes: tuple[Scheme, ...], file: Path) -> PackedLinear:
    """A layer from its tensors.

    Args:
        module: the module's name in the checkpoint.
        leaves: its tensors by last name: weight_packed, weight_scale, weight_shape, and perhaps weight_zero_point, bias.

    Raises:
        FileError: no scheme names the module, a tensor is missing, activation order by group, or shapes that disagree.
    """
    scheme = next((s for s in schemes if s.names(module)), None)
    if scheme is None:
        raise FileError(f"{file}: {module} is packed, and no group of quantization_config targets it")
    if "weight_g_idx" in leaves:
        raise FileError(f"{file}: {module} has weight_g_idx (actorder group); not supported: quantize with actorder static")
    wanted = ["weight_packed", "weight_scale", "weight_shape"] + ([] if scheme.symmetric else ["weight_zero_point"])
    missing = [leaf for leaf in wanted if leaf not in leaves]
    if missing:
        raise FileError(f"{file}: {module}: {', '.join(missing)} missing; the checkpoint is not whole")
    inputs = int(leaves["weight_shape"][-1])
    zeros = None if scheme.symmetric else leaves["weight_zero_point"]
    try:
        return PackedLinear(leaves["weight_packed"], leaves["weight_scale"], zeros, inputs, scheme.bits, leaves.get("bias"))
    except ValueError as error:
        raise FileError(f"{file}: {module}: {error}") from error


def write_config(packed: Mapping[str, PackedLinear], dense: list[str]) -> dict[str, Any]:
    """The `quantization_config` of a model.

    Args:
        packed: packed layers by their name in the checkpoint.
        dense: names of the linear layers, head included, that are not packed.
    """
    kinds: dict[tuple[int, int | None, bool], list[str]] = {}
    for name, layer in packed.items():
        group = None if layer.group_size == layer.in_features else layer.group_size
        kinds.setdefault((layer.bits, group, layer.weight_zero_point is None), []).append(name)
    groups = {}
    for number, ((bits, group, symmetric), members) in enumerate(sorted(kinds.items(), key=lambda kind: str(kind[0]))):
        weights = {
            "num_bits": bits,
            "type": "int",
            "symmetric": symmetric,
            "strategy": "channel" if group is None else "group",
            "group_size": group,
            "dynamic": False,
        }
        targets = ["Linear"] if len(kinds) == 1 else sorted(members)
        groups[f"group_{number}"] = {
            "targets": targets,
            "weights": weights,
            "input_activations": None,
            "output_activations": None,
            "format": "pack-quantized",
        }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": sorted(dense),
        "kv_cache_scheme": None,
    }


def _scheme(name: str, group: Mapping[str, Any], found: Mapping[str, Any], file: Path) -> Scheme:
    where = f"{file}: quantization_config.config_groups.{name}"
    form = group.get("format") or found.get("format")
    if form != "pack-quantized":
        raise FileError(f"{where}.format is {form!r}; {ADVICE}")
    if group.get("input_activations") or group.get("output_activations"):
        raise FileError(f"{where}: quantized activations are not supported; {ADVICE}")
    weights = group.get("weights") or {}
    bits, kind, strategy = weights.get("num_bits"), weights.get("type", "int"), weights.get("strategy") or "group"
    if not isinstance(bits, int) or not 2 <= bits <= 8 or kind != "int" or strategy not in ("group", "channel"):
        raise FileError(f"{where}.weights: {bits} bits of {kind} per {strategy}; {ADVICE}")
    return Scheme(bits, weights.get("symmetric", True), tuple(group.get("targets") or ()))
