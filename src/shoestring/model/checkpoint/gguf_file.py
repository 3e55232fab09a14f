"""GGUF files of the llama architecture, as llama.cpp writes them: blocks are unpacked to float32.

llama.cpp pairs neighbouring elements of a head for rope (0 with 1, 2 with 3), ours pairs halves (i with i + D/2): the rows of
the query and key matrices are stored in the one order and read in the other.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shoestring.architecture import ModelConfig
from shoestring.architecture.settings import LAYERS
from shoestring.errors import FileError, shown
from shoestring.model.checkpoint import gguf_tokenizer
from shoestring.model.checkpoint.families.family import Reading
from shoestring.model.checkpoint.gguf_header import Blocks, read_header
from shoestring.model.checkpoint.origin import end_ids
from shoestring.model.checkpoint.tensors import must_be_finite
from shoestring.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

    from shoestring.tokenizer import Tokenizer

INSIDE = {
    "attn_norm": "mixer_norm",
    "attn_q": "mixer.query",
    "attn_k": "mixer.key",
    "attn_v": "mixer.value",
    "attn_output": "mixer.output",
    "ffn_norm": "feed_forward_norm",
    "ffn_gate": "feed_forward.gate",
    "ffn_up": "feed_forward.up",
    "ffn_down": "feed_forward.down",
}
IDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
OUTSIDE = {"token_embd": "embedding", "output_norm": "final_norm", "output": "head"}


JOINED = 1 << 16
"""Values of a row that is unpacked: 16 of them take 4 MB in float32, and SmolLM2 is unpacked in 3 s instead of 8."""
SCALED = "rope_freqs.weight"
"""The tensor that llama.cpp adds for Llama 3's scaled rope."""


def read_config(file: Path) -> ModelConfig:
    """The configuration of a GGUF file.

    Raises:
        FileError: another architecture, experts, or scaled rope: each named.
        DamagedArtifact: a file that is cut short.
    """
    header = read_header(file)
    metadata = Reading(header.metadata, file)
    architecture = metadata.text("general.architecture")
    if architecture != "llama":
        what = f"architecture {shown(architecture)}"
        raise FileError(f"{file}: {what} is not one that shoestring reads from GGUF; allowed: llama")
    for key in ("llama.rope.scaling.type", "llama.rope.scale_linear", "llama.expert_count", "llama.attention.sliding_window"):
        if metadata.get(key) not in (None, "none", 0, 1.0 if key.endswith("linear") else 0):
            metadata.refuse(key, metadata.get(key), "not supported: use the checkpoint in Hugging Face's form")
    if SCALED in header.tensors:
        raise FileError(f"{file}: has scaled rotary frequencies (Llama 3.1 and later); use the checkpoint in Hugging Face's form")
    if "token_embd.weight" not in header.tensors:
        raise FileError(f"{file}: lacks the tensor token_embd.weight; not a whole language model")
    heads, width = metadata.count("llama.attention.head_count"), metadata.count("llama.embedding_length")
    head_size = metadata.count("llama.attention.key_length", width // heads)
    if metadata.count("llama.rope.dimension_count", head_size) != head_size:
        raise FileError(f"{file}: rotates a part of each head only: not supported")
    return metadata.fill(
        vocabulary=header.tensors["token_embd.weight"].shape[0],
        width=width,
        layers=metadata.count("llama.block_count", most=LAYERS),
        heads=heads,
        kv_heads=metadata.count("llama.attention.head_count_kv", heads),
        head_size=head_size,
        feed_forward_width=metadata.count("llama.feed_forward_length"),
        context=metadata.count("llama.context_length"),
        rope_base=metadata.number("llama.rope.freq_base", 10_000.0),
        # Stored as float32: 1e-5 comes back as 9.99999974e-06.
        norm_epsilon=float(f"{metadata.number('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        tied="output.weight" not in header.tensors,
    )


def shapes(file: Path) -> dict[str, Tensor]:
    """All tensors under our names, without their values: they are on the meta device."""
    return {_our_name(name): torch.empty(blocks.shape, device="meta") for name, blocks in read_header(file).tensors.items()}


def read_tensors(file: Path, progress: Progress = silent) -> dict[str, Tensor]:
    """All tensors under our names, float32, each seen to be finite.

    Raises:
        FileError: a block format that can't be unpacked, or NaN or infinity in a tensor.
        DamagedArtifact: a file that is cut short.
    """
    import numpy as np

    header, shape = read_header(file), read_config(file).flat
    assert shape is not None
    data = np.memmap(file, mode="r").view(np.ndarray)
    whole, done = max(1, sum(blocks.nbytes for blocks in header.tensors.values())), 0
    found = {}
    for name, blocks in header.tensors.items():
        progress(f"unpacking {name}", done / whole)
        weight = torch.from_numpy(_unpacked(data[blocks.start : blocks.start + blocks.nbytes], blocks, name, file))
        must_be_finite(weight, name, file)
        ours = _our_name(name)
        found[ours] = halves(weight, shape.head_size) if ours.endswith(("mixer.query.weight", "mixer.key.weight")) else weight
        done += blocks.nbytes
    return found


def read_records(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ids of special tokens, as `config.json` and `generation_config.json` would say them.

    Raises:
        FileError: an id that is no number.
    """
    metadata = read_header(file).metadata
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in IDS.items()}
    ends = dict.fromkeys(metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom"))
    listed = [number for number in ends if number is not None]
    config = {name: number for name, number in ids.items() if number is not None}
    for number in (*config.values(), *listed):
        end_ids({"eos_token_id": number}, file)
    return config, {**config, "eos_token_id": listed} if len(listed) > 1 else config


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a GGUF file.

    Raises:
        FileError: a kind that is not byte-level BPE, or none.
    """
    from shoestring.tokenizer import Tokenizer

    record, config = gguf_tokenizer.build(Reading(read_header(file).metadata, file))
    return Tokenizer(record, config, str(file))


def halves(weight_NK: Tensor, head_size: int) -> Tensor:
    """Rows of a head from llama.cpp's order (0, D/2, 1, D/2 + 1, ...) back to (0, 1, 2, ...)."""
    heads = weight_NK.shape[0] // head_size
    return weight_NK.view(heads, head_size // 2, 2, -1).transpose(1, 2).reshape(weight_NK.shape)


def _unpacked(data: np.ndarray, blocks: Blocks, name: str, file: Path) -> np.ndarray:
    """Stored bytes as float32 values of the tensor's shape, a copy."""
    from gguf import GGMLQuantizationType, quants

    form = GGMLQuantizationType(blocks.kind)
    # gguf unpacks 16 rows at a time, which is slow for short ones: blocks don't know of rows, so some are joined.
    rows, width = math.prod(blocks.shape[:-1]), blocks.shape[-1]
    joined = math.gcd(rows, 1 << max(0, (JOINED // width).bit_length() - 1))
    try:
        values = quants.dequantize(data.reshape(rows // joined, -1), form).reshape(blocks.shape)
    except (NotImplementedError, KeyError) as error:
        raise FileError(f"{file}: {shown(name)} is stored as {form.name}, which can't be read") from error
    # What is stored as float32 is a read-only view of the file.
    return values.astype("float32", copy=form == GGMLQuantizationType.F32)


def _our_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `blocks.3.mixer.query.weight`; unknown ones as they are, to be told as left over."""
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) == 4:
        return f"blocks.{parts[1]}.{INSIDE.get(parts[2], parts[2])}.{parts[3]}"
    return ".".join([OUTSIDE.get(parts[0], parts[0]), *parts[1:]])
