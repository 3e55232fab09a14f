"""Files that are broken, or made to break a reader: one line that names the file, at once, and nothing allocated for them."""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from shoestring.architecture import ModelConfig
from shoestring.errors import FileError, ShoestringError
from shoestring.model import PackedLinear, Transformer, linears, load, load_model, read_config, write
from shoestring.model.checkpoint import stored
from shoestring.tokenizer import Tokenizer

SHAPE = {"vocabulary": 258, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "feed_forward_width": 48, "context": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"attention_bias": True},
    "qwen3": {"head_norm": True},
    "gpt2": {"position": "learned", "norm": "layernorm", "feed_forward": "gelu", "kv_heads": 4},
    "native": {"norm": "layernorm"},
}
LLAMA_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
)
SIZES = {
    "gpt2": ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "n_inner"),
    "native": ("vocabulary", "width", "layers", "heads", "context"),
}
NUMBERS = {"gpt2": ("layer_norm_epsilon",), "native": ("rope_base", "norm_epsilon")}
FLAGS = {"native": ("tied",)}
NO_NUMBER: list[Any] = ["word", -1, 0, 10**400, [2], {"a": {"b": 1}}]


def entries(family: str) -> Iterator[tuple[str, list[Any]]]:
    """The keys of a family and what none of them may be."""
    for key in SIZES.get(family, LLAMA_SIZES):
        yield key, [*NO_NUMBER, 1.5, 10**12]
    for key in NUMBERS.get(family, ("rms_norm_eps", "rope_theta")):
        yield key, NO_NUMBER
    for key in FLAGS.get(family, ("tie_word_embeddings",)):
        yield key, ["word", 7, 1.5, [True], {"a": 1}]


def tokenizer() -> Tokenizer:
    return Tokenizer.from_ranks({bytes([b]): b for b in range(256)}, r"\S+|\s+", ["<|endoftext|>", "<|im_end|>"])


def model(**changes: Any) -> Transformer:
    return Transformer(ModelConfig(**{**SHAPE, **changes})).initialise(0).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family."""
    made = {name: tmp_path_factory.mktemp(name) for name in FAMILIES}
    for name, folder in made.items():
        write(model(**FAMILIES[name]), tokenizer(), folder)
    return made


@contextmanager
def configured(folder: Path, text: str | dict[str, Any]) -> Iterator[Path]:
    """The folder with another config.json for a while."""
    file = folder / "config.json"
    before = file.read_text()
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    try:
        yield folder
    finally:
        file.write_text(before)


def refused(folder: Path) -> str:
    """What is said; it must be one line of bounded length, at once, and take no memory to speak of."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileError) as caught:
        load(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    assert len(message) < 1500
    assert time.perf_counter() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    return message


@pytest.mark.parametrize("family", FAMILIES)
def test_each_entry_of_each_family_wrong_in_each_way(family: str, folders: dict[str, Path]) -> None:
    record = json.loads((folders[family] / "config.json").read_text())
    for key, values in entries(family):
        for value in values:
            changed = json.loads(json.dumps(record))
            (changed["shoestring"] if family == "native" else changed)[key] = value
            with configured(folders[family], changed):
                assert f"{key} is" in refused(folders[family])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000; it must be a whole number from 1 to 10,000"),
        ({"num_hidden_layers": 9999}, "its configuration says 9,999 layers, its files hold 20 tensors"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings is 1000000000000; it must be a whole number from 1 to"),
        ({"vocab_size": 1 << 27}, "embedding.weight is 258 x 32 where the configuration says 134217728 x 32"),
        ({"hidden_size": 1 << 27, "head_dim": 8}, "where the configuration says"),
        ({"num_attention_heads": 1 << 20, "head_dim": 1 << 20}, "heads of 1048576 are wider than"),
        ({"architectures": 5}, "architectures is 5; it must be a list of names"),
        ({"architectures": [5]}, "it must be a list of names"),
        ({"architectures": ["x" * 10**6]}, "(1,000,000 characters)"),
        ({"rope_scaling": "linear", "rope_parameters": None}, "rope_scaling is 'linear'; it must be an object"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "rope_parameters": None},
            "rope_scaling.low_freq_factor is missing",
        ),
        ({"rope_parameters": {"rope_type": 3}}, "rope_parameters.rope_type is 3; it must be a text"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rotary settings by kind of layer"),
        ({"rope_parameters": {"rope_theta": "big"}}, "rope_parameters.rope_theta is 'big'; it must be a number above 0"),
        ({"quantization_config": "int4"}, "quantization_config is 'int4'; it must be an object"),
        ({"quantization_config": {"config_groups": 3}}, "quantization_config.config_groups is 3"),
        ({"quantization_config": {"quant_method": ["gptq"]}}, "quantization_config.quant_method is ['gptq']"),
        ({"quantization_config": {"config_groups": {"g": None}}}, "config_groups.g.format is None"),
        ({"quantization_config": {"format": "pack-quantized", "config_groups": {"g": {"weights": 5}}}}, "g.weights is 5"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is ['full_attention', 'sliding_attention']"),
        ({"layer_types": 5}, "layer_types is 5"),
        ({"rope_interleaved": True}, "rope_interleaved is True; shoestring reads models with False only"),
        ({"eos_token_id": "2"}, "eos_token_id is '2'; it must be a number or a list of numbers"),
        ({"num_attention_heads": 64}, "head_dim"),
    ],
)
def test_configurations_made_to_break_a_reader(changes: dict, said: str, folders: dict[str, Path]) -> None:
    record = json.loads((folders["llama"] / "config.json").read_text())
    if changes == {"num_attention_heads": 64}:
        del record["head_dim"]
    with configured(folders["llama"], {**record, **changes}):
        assert said in refused(folders["llama"])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"llama"', "[" * 100_000, '{"a":' * 9999 + "1" + "}" * 9999, '{"a": NaN}', '{"a": ' + "9" * 5000 + "}"],
)
def test_a_config_that_is_no_json_object(text: str, folders: dict[str, Path]) -> None:
    with configured(folders["llama"], text):
        assert "config.json" in refused(folders["llama"])


def test_a_config_of_many_megabytes_is_not_read(folders: dict[str, Path]) -> None:
    with configured(folders["llama"], '{"a": "' + "x" * (17 << 20) + '"}'):
        assert "more than the 16,777,216 that such a file may have" in refused(folders["llama"])


def test_keys_that_python_would_take_for_its_own(folders: dict[str, Path]) -> None:
    record = json.loads((folders["native"] / "config.json").read_text())
    record["shoestring"]["self"] = 1
    with configured(folders["native"], record):
        assert "self" in refused(folders["native"])


@pytest.mark.parametrize(
    "target", ["re:(", "re:" + "(a+)+" * 9, "re:.*.*.*.*.*.*x", 5, ["x"], "re:((a|b)*)*c", "re:" + "(" * 400]
)
def test_an_expression_can_t_run_away(target: Any, folders: dict[str, Path]) -> None:
    group = {"targets": [target], "weights": {"num_bits": 4}, "format": "pack-quantized"}
    record = json.loads((folders["llama"] / "config.json").read_text())
    with configured(folders["llama"], {**record, "quantization_config": {"config_groups": {"g": group}}}):
        assert "config_groups.g.targets is" in refused(folders["llama"])


# ---------------------------------------------------------------- safetensors


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


BAD_WEIGHTS = {
    "empty": b"",
    "seven bytes": b"\x01" * 7,
    "a length that lies": _safetensors({}, length=1 << 60),
    "a length of the largest": _safetensors({}, length=(1 << 64) - 1),
    "no JSON": _safetensors(b"{{{{"),
    "no object": _safetensors([1, 2]),
    "deep": _safetensors(b"[" * 100_000),
    "an entry that is a number": _safetensors({"a": 5}),
    "no offsets": _safetensors({"a": {"dtype": "F32", "shape": [1]}}, b"0000"),
    "a shape of texts": _safetensors({"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}, b"0000"),
    "a shape that overflows": _safetensors({"a": {"dtype": "F32", "shape": [1 << 40] * 3, "data_offsets": [0, 4]}}, b"0000"),
    "a shape beyond 64 bits": _safetensors({"a": {"dtype": "F32", "shape": [0, 1 << 80], "data_offsets": [0, 0]}}),
    "negative": _safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000"),
    "offsets beyond the end": _safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"0000"),
    "offsets backwards": _safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"0000"),
    "a dtype that is not known": _safetensors({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, b"0000"),
    "tensors that overlap": _safetensors({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"0000"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_broken_safetensors(name: str, tmp_path: Path) -> None:
    write(model(), tokenizer(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(BAD_WEIGHTS[name])
    assert "model.safetensors" in refused(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "../model.safetensors"}}, "names the shard '../model.safetensors'; only files in the same folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "only files in the same folder"),
        ({"weight_map": {"a": ".."}}, "only files in the same folder"),
        ({"weight_map": {"a": ""}}, "only files in the same folder"),
        ({"weight_map": {"a": 5}}, "weight_map must name a shard for each tensor"),
        ({"weight_map": {}}, "weight_map must name"),
        ({"weight_map": ["a"]}, "weight_map must name"),
        ({}, "weight_map must name"),
        ([], "not a JSON object"),
        ({"weight_map": {"a": "model-2.safetensors"}}, "a shard that model.safetensors.index.json names is missing"),
        ({"weight_map": {"a": "model.safetensors", "b": "twin.safetensors"}}, "stands in model.safetensors too"),
        ({"weight_map": {"a": "folder"}}, "is a folder"),
    ],
)
def test_an_index_of_shards_that_lies(index: Any, said: str, tmp_path: Path) -> None:
    write(model(), tokenizer(), tmp_path)
    (tmp_path / "twin.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert said in refused(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    write(model(), tokenizer(), tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert name in refused(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json"])
@pytest.mark.parametrize("target", ["nowhere", "/dev/zero", ".", "itself"])
def test_a_link_to_what_is_no_file_is_refused(name: str, target: str, tmp_path: Path) -> None:
    write(model(), tokenizer(), tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(name if target == "itself" else target)
    assert name in refused(tmp_path)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_broken_weights_are_refused_by_name(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    write(model(), tokenizer(), tmp_path, dtype)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, file)
    assert "model.safetensors: 'model.layers.1.mlp.up_proj.weight' holds NaN or infinity" in refused(tmp_path)


def test_scales_are_weights_too(tmp_path: Path) -> None:
    made = packed()
    write(made, tokenizer(), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.down_proj.weight_scale"][0, 0] = float("inf")
    save_file(tensors, file)
    assert "'model.layers.0.mlp.down_proj.weight_scale' holds NaN or infinity" in refused(tmp_path)


def packed() -> Transformer:
    made = model()
    for block in made.blocks:
        for name, layer in linears(block).items():
            parent, _, leaf = name.rpartition(".")
            scale = layer.weight.detach().abs().amax(1, keepdim=True) / 7  # type: ignore[operator,union-attr]
            codes = (layer.weight.detach() / scale).round()  # type: ignore[operator,union-attr]
            setattr(block.get_submodule(parent), leaf, PackedLinear.from_parts(codes, scale.bfloat16(), None, 4))
    return made


@pytest.mark.parametrize(
    ("leaf", "tensor", "said"),
    [
        ("weight_shape", torch.tensor([32]), "packed as"),
        ("weight_shape", torch.tensor([[32, 48]]), "it must be torch.int64 with 1 dimension"),
        ("weight_shape", torch.tensor([32, 0]), "packed as"),
        ("weight_shape", torch.tensor([32, 1 << 60]), "packed as"),
        ("weight_shape", torch.tensor([1 << 60, 48]), "packed as"),
        ("weight_packed", torch.zeros(32, 6), "it must be torch.int32 with 2 dimensions"),
        ("weight_packed", torch.zeros(6, dtype=torch.int32), "it must be torch.int32 with 2 dimensions"),
        ("weight_scale", torch.zeros(32, 0), "packed as"),
        ("weight_scale", torch.zeros(32), "it must be floating with 2 dimensions"),
        ("weight_scale", torch.zeros(32, 1, dtype=torch.int64), "it must be floating"),
        ("weight_scale", torch.zeros(32, 5), "in groups that divide 48"),
    ],
)
def test_packed_layers_that_contradict_themselves(leaf: str, tensor: torch.Tensor, said: str, tmp_path: Path) -> None:
    write(packed(), tokenizer(), tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), f"model.layers.0.mlp.down_proj.{leaf}": tensor}, file)
    assert said in refused(tmp_path)


def test_weights_that_are_whole_numbers_are_refused(tmp_path: Path) -> None:
    write(model(), tokenizer(), tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), "model.norm.weight": torch.ones(32, dtype=torch.int64)}, file)
    assert "final_norm.weight is stored as torch.int64" in refused(tmp_path)


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    write(model(**FAMILIES["gpt2"]), tokenizer(), tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), "wpe.weight": torch.zeros(64, 32)}, file)
    assert "transformer.wpe.weight stands there with and without its prefix" in refused(tmp_path)


def test_nothing_is_written_of_a_broken_model(tmp_path: Path) -> None:
    broken = model()
    with torch.no_grad():
        broken.blocks[1].feed_forward.up.weight[0, 0] = float("nan")
    with pytest.raises(FileError, match=r"blocks\.1\.feed_forward\.up\.weight holds NaN or infinity, so nothing was written"):
        write(broken, tokenizer(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_float16_is_not_made_to_overflow(tmp_path: Path) -> None:
    large = model()
    with torch.no_grad():
        large.final_norm.weight[0] = 1e5
    with pytest.raises(FileError, match=r"final_norm\.weight has values beyond what float16 holds; save in bfloat16"):
        write(large, tokenizer(), tmp_path, torch.float16)
    write(large, tokenizer(), tmp_path)
    with pytest.raises(FileError, match=r"final_norm\.weight has values beyond what float16 holds; load it in bfloat16"):
        load_model(tmp_path, torch.float16)


# ---------------------------------------------------------------- tied


def _renamed(folder: Path, head: torch.Tensor | None, keep: bool) -> None:
    """The embedding's file with a head beside it or instead of it."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    embedding = tensors["model.embed_tokens.weight"]
    if not keep:
        del tensors["model.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": (embedding if head is None else head).clone()}, file)


@pytest.mark.parametrize("keep", [True, False])
def test_either_name_of_the_shared_tensor_loads(keep: bool, tmp_path: Path) -> None:
    ours = model()
    write(ours, None, tmp_path)
    _renamed(tmp_path, None, keep)
    back = load_model(tmp_path)
    assert back.head.weight is back.embedding.weight
    assert torch.equal(back.embedding.weight, ours.embedding.weight)


def test_a_tied_configuration_with_two_tensors_is_refused(tmp_path: Path) -> None:
    write(model(), tokenizer(), tmp_path)
    _renamed(tmp_path, torch.zeros(258, 32), keep=True)
    assert "two different tensors" in refused(tmp_path)


# ---------------------------------------------------------------- GGUF


def tiny_gguf(file: Path, **changes: Any) -> None:
    """A llama of one layer; a change of a key that is None leaves it out."""
    width, tokens = (
        32,
        ["<|endoftext|>", *(chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)])],
    )
    writer = gguf.GGUFWriter(file, "llama")
    entries: dict[str, Any] = {
        "llama.context_length": 64,
        "llama.embedding_length": width,
        "llama.block_count": 1,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*tokens, "he"],
        "tokenizer.ggml.token_type": [3] + [1] * 257,
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.eos_token_id": 0,
    }
    for key, value in {**entries, **changes}.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None and key != "tensors":
            writer.add_uint32(key, value)
    square = np.ones((width, width), np.float32) / 8
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    tensors = {f"blk.0.{name}.weight": square for name in names}
    tensors |= {f"blk.0.{name}.weight": np.ones(width, np.float32) for name in ("attn_norm", "ffn_norm")}
    tensors |= {"token_embd.weight": np.ones((258, width), np.float32), "output_norm.weight": np.ones(width, np.float32)}
    for name, tensor in {**tensors, **changes.get("tensors", {})}.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"llama.block_count": None}, "llama.block_count is missing"),
        ({"llama.block_count": "two"}, "llama.block_count is 'two'; it must be a whole number from 1 to 10,000"),
        ({"llama.block_count": 10**6}, "llama.block_count is 1000000"),
        ({"llama.block_count": 9000}, "9,000 layers, its files hold 11 tensors"),
        ({"llama.attention.head_count": 0}, "llama.attention.head_count is 0"),
        ({"llama.attention.head_count_kv": [1, 2]}, "llama.attention.head_count_kv is [1, 2]"),
        ({"llama.attention.layer_norm_rms_epsilon": "small"}, "it must be a number above 0"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "it must be a number above 0"),
        ({"llama.feed_forward_length": 2**31}, "llama.feed_forward_length is 2147483648"),
        ({"llama.expert_count": 8}, "llama.expert_count is 8; not supported"),
        ({"llama.attention.sliding_window": 16}, "llama.attention.sliding_window is 16; not supported"),
        ({"llama.rope.scale_linear": 2.0}, "llama.rope.scale_linear is 2.0; not supported"),
        ({"tokenizer.ggml.tokens": 5}, "tokenizer.ggml.tokens is 5; it must be a list of texts"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "it must be a list of texts"),
        ({"tokenizer.ggml.token_type": [1]}, "it must give a number for each of the 258 tokens"),
        ({"tokenizer.ggml.merges": ["he"]}, "tokenizer.ggml.merges is 'he'; it must join two tokens to a third"),
        ({"tokenizer.ggml.merges": ["h f"]}, "it must join two tokens to a third"),
        ({"tokenizer.ggml.eos_token_id": "end"}, "eos_token_id is 'end'; it must be a number"),
        ({"tokenizer.chat_template": 5}, "tokenizer.chat_template is 5; it must be a text"),
        ({"tensors": {"token_embd.weight": np.ones(258, np.float32)}}, "embedding.weight is 258 where the configuration says"),
        ({"tensors": {"blk.0.ffn_up.weight": np.full((32, 32), np.nan, np.float32)}}, "'blk.0.ffn_up.weight' holds NaN"),
        ({"tensors": {"blk.0.ffn_up.weight": np.ones((32, 32), np.int32)}}, "is stored as I32, which can't be read"),
        ({"tensors": {"blk.0.ffn_up.weight": np.ones((16, 32), np.float32)}}, "16 x 32 where the configuration says 32 x 32"),
        ({"tensors": {"odd": np.ones(3, np.float32)}}, "has, beyond the model, odd"),
    ],
)
def test_gguf_that_contradicts_itself(changes: dict, said: str, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "m.gguf", **changes)
    assert said in refused(tmp_path / "m.gguf")


def test_gguf_headers_that_lie(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    tiny_gguf(file)
    load(file)
    good = file.read_bytes()
    count = 16  # of key-values, behind magic, version and the count of tensors
    first = 24
    for what, data in {
        "magic": b"GGML" + good[4:],
        "version 1": good[:4] + struct.pack("<I", 1) + good[8:],
        "version 99": good[:4] + struct.pack("<I", 99) + good[8:],
        "big-endian": good[:4] + struct.pack(">I", 3) + good[8:],
        "2^60 tensors": good[:8] + struct.pack("<Q", 1 << 60) + good[16:],
        "2^60 key-values": good[:count] + struct.pack("<Q", 1 << 60) + good[24:],
        "2^63 key-values": good[:count] + struct.pack("<Q", 1 << 63) + good[24:],
        "a key of 2^50 bytes": good[:first] + struct.pack("<Q", 1 << 50) + good[first + 8 :],
        "only its magic": good[:4],
        "half a header": good[:200],
        "no data": good[: len(good) // 2],
    }.items():
        file.write_bytes(data)
        assert "m.gguf" in refused(file), what
    # A list in a list in a list ..., and a list of 2^60 texts.
    lists = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q1s", 1, b"a") + struct.pack("<I", 9)
    for inner in (struct.pack("<IQ", 9, 1) * 100_000, struct.pack("<IQ", 8, 1 << 60), struct.pack("<IQ", 77, 3)):
        file.write_bytes(lists + inner)
        refused(file)


# ---------------------------------------------------------------- random faults


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    write(packed(), tokenizer(), folder)
    tiny_gguf(folder / "m.gguf")
    return folder


CHANGES = [b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"[[[", b"-1"]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["config.json", "model.safetensors", "generation_config.json", "m.gguf"]),
    place=st.floats(0, 1),
    change=st.binary(min_size=1, max_size=9) | st.sampled_from(CHANGES),
    cut=st.booleans(),
    early=st.booleans(),
)
def test_a_fault_anywhere_is_refused_or_harmless(
    good: Path, name: str, place: float, change: bytes, cut: bool, early: bool
) -> None:
    file = good / name
    before = file.read_bytes()
    at = int(place * (min(len(before), 1500) if early else len(before)))
    file.write_bytes(before[:at] + change + (b"" if cut else before[at + len(change) :]))
    start, message = time.perf_counter(), ""
    try:
        load(file if name == "m.gguf" else good)
    except ShoestringError as error:
        message = str(error)
    finally:
        file.write_bytes(before)
    assert "\n" not in message
    assert len(message) < 2000
    assert time.perf_counter() - start < 5


def test_reading_a_configuration_reads_no_weights(tmp_path: Path) -> None:
    write(model(), None, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(save({"a": torch.zeros(1)}))
    assert read_config(tmp_path) == ModelConfig(**SHAPE)


def test_how_a_checkpoint_is_stored_is_told_from_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    write(packed(), None, tmp_path)
    monkeypatch.setattr(safetensors.torch, "load_file", lambda *_: pytest.fail("tensors were read"))
    dtype, bits = stored(tmp_path)
    assert dtype == torch.bfloat16
    assert 4 < bits < 5
