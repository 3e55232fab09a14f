"""compressed-tensors' `quantization_config`, both ways: what llm-compressor writes and vLLM reads, weights of integers packed.

Its targets are "Linear" for all, a module's full name, or "re:" with an expression; `ignore` lists the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shoestring.architecture.settings import LARGEST
from shoestring.errors import FileError, shown
from shoestring.model.checkpoint.families.family import Reading
from shoestring.model.checkpoint.formats.format import Format, Leaves
from shoestring.model.forms import Matrix, PackedLinear, parts

ADVICE = "allowed: compressed-tensors in the pack-quantized format, weights of 2 to 8 bits per group or channel"

REPETITIONS = 4
"""That an expression among the targets may have: a name of 40 letters is then matched in no time, however it is written."""


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


def read_schemes(config: Reading) -> tuple[Scheme, ...]:
    """The schemes of a `quantization_config`.

    Raises:
        FileError: another format, quantized activations, sparse storage: each named.
    """
    config.inside("sparsity_config").only("format", "dense", advice=ADVICE)
    config.only("kv_cache_scheme", None, advice=ADVICE)
    if config.inside("transform_config").get("config_groups"):
        raise FileError(f"{config.file}: {config.prefix}transform_config (rotations) is not supported; {ADVICE}")
    groups = config.inside("config_groups")
    return tuple(_scheme(groups.inside(name), config.get("format")) for name in groups.record)


def read(config: Reading, modules: Leaves, file: Path) -> dict[str, Matrix]:
    """The packed layers: those that have a weight_packed.

    Raises:
        FileError: as `read_schemes` and `packed_linear`.
    """
    schemes = read_schemes(config)
    names = [name for name, leaves in modules.items() if "weight_packed" in leaves]
    return {
        name: packed_linear(name, {leaf: t.clone() for leaf, t in modules.pop(name).items()}, schemes, file) for name in names
    }


def why_not(matrix: Matrix) -> str:
    """Packed integers are all it holds."""
    return "" if matrix.form == "packed" else f"it holds packed integers, not the form {matrix.form}"


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
    wanted = {"weight_packed": torch.int32, "weight_scale": None, "weight_shape": torch.int64}
    wanted |= {} if scheme.symmetric else {"weight_zero_point": torch.int32}
    missing = [leaf for leaf in wanted if leaf not in leaves]
    if missing:
        raise FileError(f"{file}: {module}: {', '.join(missing)} missing; the checkpoint is not whole")
    for leaf, dtype in wanted.items():
        tensor, dimensions = leaves[leaf], 1 if leaf == "weight_shape" else 2
        if tensor.ndim != dimensions or not (tensor.dtype == dtype if dtype else tensor.is_floating_point()):
            wanted_kind = "floating" if dtype is None else dtype
            raise FileError(
                f"{file}: {module}.{leaf} is {tensor.dtype} of shape {list(tensor.shape)}; it must be {wanted_kind} with "
                f"{dimensions} dimension{'s' * (dimensions > 1)}"
            )
    shape = leaves["weight_shape"].tolist()
    packed, scale, zeros = leaves["weight_packed"], leaves["weight_scale"], leaves.get("weight_zero_point")
    if len(shape) != 2 or shape[0] != packed.shape[0] or not 0 < shape[1] <= LARGEST or not 0 < scale.shape[1] <= shape[1]:
        raise FileError(
            f"{file}: {module}.weight_shape is {shown(shape)}, packed as {list(packed.shape)} with scales {list(scale.shape)}"
        )
    try:
        return PackedLinear(packed, scale, None if scheme.symmetric else zeros, shape[1], scheme.bits, leaves.get("bias"))
    except ValueError as error:
        raise FileError(f"{file}: {module}: {error}") from error


def write_config(packed: Mapping[str, Any], dense: list[str]) -> dict[str, Any]:
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


def _scheme(group: Reading, form: Any) -> Scheme:
    where = f"{group.file}: {group.prefix.removesuffix('.')}"
    form = group.get("format") or form
    if form != "pack-quantized":
        raise FileError(f"{where}.format is {shown(form)}; {ADVICE}")
    if group.get("input_activations") or group.get("output_activations"):
        raise FileError(f"{where}: quantized activations are not supported; {ADVICE}")
    weights = group.inside("weights")
    bits, kind, strategy = weights.get("num_bits"), weights.get("type", "int"), weights.get("strategy") or "group"
    if type(bits) is not int or not 2 <= bits <= 8 or kind != "int" or strategy not in ("group", "channel"):
        raise FileError(
            f"{where}.weights: {shown(bits)} bits of {shown(kind, quote=False)} per {shown(strategy, quote=False)}; {ADVICE}"
        )
    targets = group.get("targets", [])
    if not isinstance(targets, list):
        group.refuse("targets", targets, "it must be a list of names")
    return Scheme(bits, weights.flag("symmetric", True), tuple(_target(target, group) for target in targets))


def _target(target: Any, reading: Reading) -> str:
    """A target that is a name, or an expression which can't run away: few repetitions, none of a group."""
    if not isinstance(target, str) or len(target) > 500:
        reading.refuse("targets", target, "it must be a list of names")
    if target.startswith("re:"):
        plain = re.sub(r"\\.", "", target[3:])
        if sum(map(plain.count, "*+{")) > REPETITIONS or re.search(r"\)[*+{]", plain):
            reading.refuse("targets", target, f"an expression may repeat {REPETITIONS} times at the most, and no group")
        try:
            re.compile(target[3:])
        except (re.error, RecursionError, OverflowError) as error:
            reading.refuse("targets", target, f"it is no regular expression ({error})")
    return target


COMPRESSED_TENSORS = Format(
    method="compressed-tensors",
    why_not=why_not,
    leaves=lambda matrix: parts(matrix)[2],
    config=write_config,
    read=read,
    bits=lambda config: frozenset(scheme.bits for scheme in read_schemes(config)),
)
