"""GGUF files: tiny ones made here by the gguf package, and the fetched SmolLM2 when it is on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from shoestring.architecture import ModelConfig
from shoestring.errors import DamagedArtifact, FileError, SettingError
from shoestring.model import Transformer, load, load_model, load_tokenizer, read_config, save
from shoestring.model.checkpoint.gguf_file import halves
from shoestring.model.fetch import cached

CONFIG = ModelConfig(vocabulary=262, width=64, layers=2, heads=4, kv_heads=2, feed_forward_width=96, context=64, rope_base=5000.0)
THEIRS = {
    "embedding": "token_embd",
    "final_norm": "output_norm",
    "mixer_norm": "attn_norm",
    "mixer.query": "attn_q",
    "mixer.key": "attn_k",
    "mixer.value": "attn_v",
    "mixer.output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}
KINDS = gguf.GGMLQuantizationType


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's converter: rows (0 ... D-1) of a head as (0, D/2, 1, D/2 + 1, ...)."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(file: Path, model: Transformer, kind: KINDS = KINDS.F32, **changes: object) -> None:
    config = model.config
    writer = gguf.GGUFWriter(file, str(changes.get("architecture", "llama")))
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(len(config.layers))
    writer.add_feed_forward_length(config.flat.feed_forward_width)
    writer.add_head_count(config.flat.heads)
    writer.add_head_count_kv(config.flat.kv_heads)
    writer.add_rope_freq_base(config.flat.rope_base)
    writer.add_layer_norm_rms_eps(config.flat.norm_epsilon)
    writer.add_tokenizer_model(str(changes.get("tokenizer", "gpt2")))
    writer.add_tokenizer_pre(str(changes.get("pre", "smollm")))
    symbols = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    tokens = ["<|endoftext|>", *symbols, "Ġt", "he", "Ġthe", "<|im_end|>", "<|pad|>"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * 259, 3, 3])
    writer.add_token_merges(["Ġ t", "h e", "Ġt he"])
    writer.add_eos_token_id(260)
    if "add_bos" in changes:
        writer.add_bos_token_id(0)
        if changes["add_bos"] is not None:
            writer.add_add_bos_token(bool(changes["add_bos"]))
    for name in ("eot", "eom"):
        if name in changes:
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", changes[name])
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, tensor in model.state_dict().items():
        if name == "head.weight":
            continue
        module = name.removesuffix(".weight")
        if module.startswith("blocks."):
            _, layer, module = module.split(".", 2)
            theirs = f"blk.{layer}.{THEIRS[module]}.weight"
        else:
            theirs = f"{THEIRS[module]}.weight"
        heads = {"mixer.query": config.flat.heads, "mixer.key": config.flat.kv_heads}.get(module)
        array = (interleave(tensor, heads) if heads else tensor).numpy()
        if array.ndim == 1 or kind is KINDS.F32:
            writer.add_tensor(theirs, array)
        else:
            writer.add_tensor(theirs, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def model(seed: int = 0) -> Transformer:
    return Transformer(CONFIG).initialise(seed).eval()


def test_reads_float32_exactly(tmp_path: Path) -> None:
    ours = model()
    write_gguf(tmp_path / "m.gguf", ours)
    assert read_config(tmp_path / "m.gguf") == CONFIG
    read, tokenizer = load(tmp_path / "m.gguf")
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), read.state_dict().values()))
    assert tokenizer.end == 260
    assert tokenizer.vocabulary == 262
    assert tokenizer.ends == {0, 260}
    assert read.origin is not None
    assert read.origin.config == read.origin.generation == {"eos_token_id": 260}
    assert (read.origin.source, read.origin.dtype) == (str(tmp_path / "m.gguf"), torch.float16)


def test_ends_of_turn_and_message_count(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", model(), eot=7, eom=8)
    read, tokenizer = load(tmp_path / "m.gguf")
    assert tokenizer.ends == {0, 7, 8, 260}
    save(read, tokenizer, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [260, 0, 7, 8]
    assert load(tmp_path / "out")[1].ends == {0, 7, 8, 260}


@pytest.mark.parametrize("kind", [KINDS.F16, KINDS.BF16, KINDS.Q8_0, KINDS.Q4_0, KINDS.Q4_1, KINDS.Q5_1], ids=lambda k: k.name)
def test_unpacks_blocks(kind: KINDS, tmp_path: Path) -> None:
    ours = model()
    write_gguf(tmp_path / "m.gguf", ours, kind)
    read = load_model(tmp_path / "m.gguf")
    wanted = gguf.quants.dequantize(gguf.quants.quantize(ours.blocks[1].feed_forward.up.weight.detach().numpy(), kind), kind)
    assert np.array_equal(read.blocks[1].feed_forward.up.weight.detach().numpy(), wanted)
    spread = ours.blocks[0].mixer.key.weight - read.blocks[0].mixer.key.weight
    assert spread.abs().max() < 0.02


def test_rows_of_a_head_come_back_in_order() -> None:
    weight = torch.randn(24, 5)
    assert torch.equal(halves(interleave(weight, 3), 8), weight)
    assert not torch.equal(interleave(weight, 3), weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "gemma3"}, "architecture 'gemma3' is not one that shoestring reads from GGUF; allowed: llama"),
        ({"tokenizer": "llama"}, "tokenizer kind 'llama' is not supported"),
        ({"pre": "smolm"}, "did you mean 'smollm'"),
    ],
)
def test_what_is_not_supported_is_named(changes: dict, said: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", model(), **changes)
    with pytest.raises(FileError, match=said):
        load(tmp_path / "m.gguf")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.9])
def test_a_file_cut_short_is_told(share: float, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", model())
    content = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FileError if share == 0 else DamagedArtifact, match=r"m\.gguf"):
        load_model(tmp_path / "m.gguf")


def test_the_tokenizer_round_trips(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", model())
    tokenizer = load_tokenizer(tmp_path / "m.gguf")
    text = "the 12 the\n naïve ½ <|endoftext|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(" the") == [259]


@pytest.mark.parametrize(
    ("pre", "flag", "prefix"), [("smollm", None, ()), ("smollm", True, (0,)), ("llama-bpe", None, (0,)), ("llama-bpe", False, ())]
)
def test_what_stands_before_a_text(pre: str, flag: bool | None, prefix: tuple[int, ...], tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", model(), pre=pre, add_bos=flag)
    tokenizer = load_tokenizer(tmp_path / "m.gguf")
    assert tokenizer.prefix == prefix
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).prefix == prefix


@pytest.fixture(scope="module")
def smollm2() -> Path:
    folder = os.environ.get("SHOESTRING_ASSETS")
    try:
        file = cached("smollm2-135m")
    except SettingError:
        file = Path("missing")
    if not file.is_file():
        pytest.skip("smollm2-135m was not fetched")
    if not folder:
        pytest.skip("SHOESTRING_ASSETS names no folder with WikiText-2")
    return Path(folder)


@pytest.mark.slow
def test_smollm2_agrees_with_its_tokenizer_and_with_the_known_perplexity(smollm2: Path) -> None:
    import lzma
    import math

    from shoestring.tokenizer import Tokenizer

    language_model, tokenizer = load("smollm2-135m")
    with lzma.open(smollm2 / "corpus" / "wikitext2_raw_test.txt.xz", "rt", encoding="utf-8") as stream:
        text = stream.read()
    other = Tokenizer.open(smollm2 / "tokenizers" / "smollm2_tokenizer.json.xz")
    tokens = tokenizer.encode(text[:400_000])
    assert tokens == other.encode(text[:400_000])
    windows = torch.tensor(tokens[: 2 * 1024]).view(2, 1024)
    with torch.inference_mode():
        logits = language_model(windows)[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, windows[:, 1:].flatten()).item()
    # Over 32 windows it is 24.0 (docs/model.md); two are enough to see a wrong row.
    assert math.exp(loss) == pytest.approx(20.21, rel=1e-3)
