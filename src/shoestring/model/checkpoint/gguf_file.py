"""GGUF files of the llama architecture, as llama.cpp writes them: blocks are unpacked to float32.

llama.cpp pairs neighbouring elements of a head for rope (0 with 1, 2 with 3), ours pairs halves (i with i + D/2): the rows of
the query and key matrices are stored in the one order and read in the other.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shoestring.errors import DamagedArtifact, FileError, file_error
from shoestring.model.checkpoint import gguf_tokenizer
from shoestring.model.config import ModelConfig

if TYPE_CHECKING:
    from gguf import GGUFReader

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


def read_config(file: Path) -> ModelConfig:
    """The configuration of a GGUF file.

    Raises:
        FileError: another architecture, experts, or scaled rope: each named.
        DamagedArtifact: a file that is cut short.
    """
    return _config(_open(file), file)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors under our names, float32.

    Raises:
        FileError: a block format that can't be unpacked.
        DamagedArtifact: a file that is cut short.
    """
    from gguf import quants

    reader = _open(file)
    config = _config(reader, file)
    found = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        try:
            values = quants.dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, KeyError) as error:
            raise FileError(f"{file}: {tensor.name} is stored as {tensor.tensor_type.name}, which can't be read") from error
        name = _our_name(tensor.name)
        weight = torch.from_numpy(values.astype("float32")).reshape([int(n) for n in reversed(tensor.shape)])
        if name.endswith(("mixer.query.weight", "mixer.key.weight")):
            weight = halves(weight, config.head_size)
        found[name] = weight
    return found


def read_records(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ids of special tokens, as `config.json` and `generation_config.json` would say them."""
    metadata = _Metadata(_open(file), file)
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in IDS.items()}
    ends = dict.fromkeys(metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom"))
    listed = [number for number in ends if number is not None]
    config = {name: number for name, number in ids.items() if number is not None}
    return config, {**config, "eos_token_id": listed} if len(listed) > 1 else config


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a GGUF file.

    Raises:
        FileError: a kind that is not byte-level BPE, or none.
    """
    from shoestring.tokenizer import Tokenizer

    record, config = gguf_tokenizer.build(_Metadata(_open(file), file))
    return Tokenizer(record, config, str(file))


def halves(weight_NK: Tensor, head_size: int) -> Tensor:
    """Rows of a head from llama.cpp's order (0, D/2, 1, D/2 + 1, ...) back to (0, 1, 2, ...)."""
    heads = weight_NK.shape[0] // head_size
    return weight_NK.view(heads, head_size // 2, 2, -1).transpose(1, 2).reshape(weight_NK.shape)


class _Metadata:
    """Key-values of a GGUF file, each read once, missing ones told with the file's name."""

    def __init__(self, reader: GGUFReader, file: Path) -> None:
        self.reader, self.file = reader, file

    def get(self, key: str, otherwise: Any = None) -> Any:
        field = self.reader.fields.get(key)
        return otherwise if field is None else field.contents()

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise FileError(f"{self.file}: its metadata lacks {key}; not a whole language model")
        return value


def _open(file: Path) -> GGUFReader:
    try:
        found = file.stat()
        with file.open("rb") as stream:
            magic = stream.read(4)
        if magic != b"GGUF":
            raise FileError(f"{file}: not a GGUF file")
        return _reader(file, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise file_error(file, error) from error
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise DamagedArtifact(file, f"not whole GGUF: {error}") from error


@lru_cache(maxsize=1)
def _reader(file: Path, size: int, changed: int) -> GGUFReader:
    """Parsed once for configuration, weights and tokenizer: 49,152 tokens cost a second. Size and date tell another file."""
    from gguf import GGUFReader

    return GGUFReader(file)


def _config(reader: GGUFReader, file: Path) -> ModelConfig:
    metadata = _Metadata(reader, file)
    architecture = metadata.need("general.architecture")
    if architecture != "llama":
        raise FileError(f"{file}: architecture {architecture!r} is not one that shoestring reads from GGUF; allowed: llama")
    names = {tensor.name for tensor in reader.tensors}
    for key in ("llama.rope.scaling.type", "llama.expert_count"):
        if metadata.get(key) not in (None, "none", 0):
            raise FileError(f"{file}: {key} is {metadata.get(key)!r}: not supported; use the checkpoint in Hugging Face's form")
    if "rope_freqs.weight" in names:
        raise FileError(f"{file}: has scaled rotary frequencies (Llama 3.1 and later); use the checkpoint in Hugging Face's form")
    heads, width = metadata.need("llama.attention.head_count"), metadata.need("llama.embedding_length")
    head_size = metadata.get("llama.attention.key_length", width // heads)
    if metadata.get("llama.rope.dimension_count", head_size) != head_size:
        raise FileError(f"{file}: rotates a part of each head only: not supported")
    embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    return ModelConfig(
        vocabulary=int(embedding.shape[1]),
        width=width,
        layers=metadata.need("llama.block_count"),
        heads=heads,
        kv_heads=metadata.get("llama.attention.head_count_kv", heads),
        head_size=head_size,
        feed_forward_width=metadata.need("llama.feed_forward_length"),
        context=metadata.need("llama.context_length"),
        rope_base=metadata.get("llama.rope.freq_base", 10_000.0),
        # Stored as float32: 1e-5 comes back as 9.99999974e-06.
        norm_epsilon=float(f"{metadata.need('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        tied="output.weight" not in names,
    )


def _our_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `blocks.3.mixer.query.weight`; unknown ones as they are, to be told as left over."""
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) == 4:
        return f"blocks.{parts[1]}.{INSIDE.get(parts[2], parts[2])}.{parts[3]}"
    return ".".join([OUTSIDE.get(parts[0], parts[0]), *parts[1:]])
