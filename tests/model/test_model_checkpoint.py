"""Checkpoints whole or refused; written the same for the same model; the Pretrained technique."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from shoestring.architecture import ModelConfig, counts
from shoestring.artifact import checksum, manifest
from shoestring.errors import DamagedArtifact, FileError, SettingError
from shoestring.measure import Hardware, Meter
from shoestring.measure.hardware import find
from shoestring.model import Pretrained, Transformer, load, load_model, read_config, save, write
from shoestring.technique import Sketch, Task, Watch
from shoestring.tokenizer import Tokenizer

CONFIG = ModelConfig(vocabulary=259, width=32, layers=2, heads=4, kv_heads=2, feed_forward_width=48, context=64)


def tokenizer() -> Tokenizer:
    ranks = {bytes([b]): b for b in range(256)}
    return Tokenizer.from_ranks(ranks, r"\S+|\s+", ["<|endoftext|>"])


def model(seed: int = 0, config: ModelConfig = CONFIG) -> Transformer:
    return Transformer(config).initialise(seed).eval()


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    ours = model()
    save(ours, tokenizer(), tmp_path / "c", about={"origin": "a test"})
    back, words = load(tmp_path / "c")
    assert back.config == CONFIG
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), back.state_dict().values()))
    assert back.head.weight is back.embedding.weight
    assert not back.training
    assert words.encode("hello") == tokenizer().encode("hello")
    about = manifest(tmp_path / "c").about
    assert about["origin"] == "a test"
    assert about["facts"] == {"disk_bytes": manifest(tmp_path / "c").bytes, "sparsity": 0.0, "bits_per_weight": 32.0}


def test_loading_does_not_import_the_compiler(tmp_path: Path) -> None:
    write(model(), None, tmp_path)
    code = "import sys; from shoestring.model import load_model; load_model(sys.argv[1]); print('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save(model(), tokenizer(), tmp_path / name)
    assert manifest(tmp_path / "a").files == manifest(tmp_path / "b").files
    assert (tmp_path / "a" / "model.safetensors").stat().st_mode == (tmp_path / "a" / "config.json").stat().st_mode


def test_dtypes_on_disk_and_in_memory(tmp_path: Path) -> None:
    save(model(), tokenizer(), tmp_path / "c", torch.bfloat16)
    assert {t.dtype for t in load_file(tmp_path / "c" / "model.safetensors").values()} == {torch.bfloat16}
    assert next(load_model(tmp_path / "c").parameters()).dtype == torch.float32
    half = load_model(tmp_path / "c", torch.bfloat16)
    assert next(half.parameters()).dtype == torch.bfloat16
    half(torch.zeros(1, 4, dtype=torch.long))
    assert next(iter(half.rotaries.values())).table.dtype == torch.float32


def test_transformers_opens_model_and_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save(model(), tokenizer(), tmp_path / "c")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "c")
    assert words("hello there")["input_ids"] == tokenizer().encode("hello there")
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "c").config.eos_token_id == tokenizer().end


def _edit(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"architectures": ["LamaForCausalLM"]},
            "LamaForCausalLM is not one that shoestring reads; did you mean 'LlamaForCausalLM'",
        ),
        ({"architectures": None}, r"architecture \(none\)"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; shoestring reads models with 'silu' only"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"sliding_window": 16}, "sliding_window is 16, shorter than 64"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope scaling 'yarn'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_key_value_heads": 3}, "kv_heads must divide heads"),
        ({"num_hidden_layers": 3}, r"lacks blocks\.2\.feed_forward\.down\.weight, .* and 6 more"),
        ({"num_hidden_layers": 1}, "has, beyond the model"),
        ({"intermediate_size": 50}, r"48 x 32|32 x 48"),
        ({"quantization_config": {"quant_method": "awq"}}, "quant_method is 'awq'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict, said: str, tmp_path: Path) -> None:
    write(model(), None, tmp_path)
    _edit(tmp_path, **changes)
    with pytest.raises(FileError, match=said) as caught:
        load_model(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_function": "gelu_new"}, "activation_function is 'gelu_new'; shoestring reads models with 'gelu' only"),
        ({"activation_function": None}, "'gelu_new'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
)
def test_other_gpt2s_are_refused(changes: dict, said: str, tmp_path: Path) -> None:
    shape = {"position": "learned", "norm": "layernorm", "feed_forward": "gelu", "kv_heads": 4}
    write(model(config=ModelConfig(**{**CONFIG.model_dump(), **shape})), None, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["transformer.h.1.mlp.c_fc.bias"] += 1
    save_file(tensors, file)
    with pytest.raises(FileError, match=r"transformer\.h\.1\.mlp\.c_fc\.bias is not zero"):
        load_model(tmp_path)
    _edit(tmp_path, **changes)
    with pytest.raises(FileError, match=said):
        load_model(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 200, 4000])
def test_a_file_cut_short_is_damaged(size: int, tmp_path: Path) -> None:
    write(model(), None, tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DamagedArtifact, match=r"model\.safetensors: damaged"):
        load_model(tmp_path)


def test_an_artifact_with_a_file_of_another_size_is_damaged(tmp_path: Path) -> None:
    save(model(), tokenizer(), tmp_path / "c")
    file = tmp_path / "c" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DamagedArtifact, match="bytes instead of"):
        load_model(tmp_path / "c")


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    write(model(), None, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileError, match=r"pytorch_model\.bin: pickled weights can run code and are never loaded"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(FileError, match=r"no model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FileError, match="not JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileError, match=r"no config\.json"):
        read_config(tmp_path)


def test_a_tokenizer_of_another_model_is_told(tmp_path: Path) -> None:
    save(model(config=CONFIG.with_(vocabulary=200)), tokenizer(), tmp_path / "c")
    with pytest.raises(FileError, match="the tokenizer has 257 entries, the embedding 200 rows"):
        load(tmp_path / "c")


def _work(out: Path) -> tuple[Task, Watch]:
    hardware: Hardware = find("cpu")
    return Task(out, out.parent / "scratch", hardware), Watch(Meter(hardware), lambda text: None)


@pytest.mark.parametrize("dtype", ["auto", "float16", "float32"])
def test_pretrained_predicts_and_makes_a_checkpoint(dtype: str, tmp_path: Path) -> None:
    save(model(), tokenizer(), tmp_path / "source", torch.bfloat16)
    technique = Pretrained(source=str(tmp_path / "source"), dtype=dtype)
    before = technique.predict(Sketch(), find("cpu"))
    assert before.sketch.model == CONFIG
    for out in ("one", "two"):
        state = technique.apply({}, *_work(tmp_path / out))
        assert state["checkpoint"] == tmp_path / out
    assert manifest(tmp_path / "one").files == manifest(tmp_path / "two").files
    after = technique.observe(before.sketch, {"checkpoint": tmp_path / "one"})
    wanted = {"auto": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[dtype]
    bits = 8 * wanted.itemsize
    assert after.bits_per_weight == before.sketch.bits_per_weight == bits
    weights = (tmp_path / "one" / "model.safetensors").stat().st_size
    assert counts.checkpoint_bytes(CONFIG.with_(vocabulary=1), bits, bits) == pytest.approx(
        weights - wanted.itemsize * 32 * (CONFIG.vocabulary - 1), rel=0.1
    )
    stored = {t.dtype for t in load_file(tmp_path / "one" / "model.safetensors").values()}
    assert stored == {wanted}
    model_again = load_model(tmp_path / "one")
    assert model_again.origin is not None
    assert model_again.origin.dtype == wanted


def test_pretrained_is_known_by_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOESTRING_HOME", str(tmp_path / "empty"))
    save(model(0), tokenizer(), tmp_path / "c")
    technique = Pretrained(source=str(tmp_path / "c"))
    first = technique.outside()
    save(model(1), tokenizer(), tmp_path / "c")
    assert technique.outside() != first
    known = Pretrained(source="smollm2-135m")
    assert counts.parameters(known.predict(Sketch(), find("cpu")).sketch.model) == 134_515_008
    with pytest.raises(SettingError, match="shoestring fetch smollm2-135m"):
        known.apply({}, *_work(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingError, match="nobody/nothing"):
        Pretrained(source="nobody/nothing").predict(Sketch(), find("cpu"))


def test_a_packed_source_keeps_its_bits(tmp_path: Path) -> None:
    from shoestring.model import PackedLinear, linears

    ours = model()
    for block in ours.blocks:
        for name, layer in linears(block).items():
            parent, _, leaf = name.rpartition(".")
            scale = layer.weight.detach().abs().amax(1, keepdim=True) / 7
            packed = PackedLinear.from_parts((layer.weight.detach() / scale).round(), scale, None, 4)
            setattr(block.get_submodule(parent), leaf, packed)
    save(ours, tokenizer(), tmp_path / "c")
    technique = Pretrained(source=str(tmp_path / "c"))
    predicted = technique.predict(Sketch(), find("cpu")).sketch
    after = technique.observe(predicted, technique.apply({}, *_work(tmp_path / "out")))
    assert after.bits_per_weight == pytest.approx(predicted.bits_per_weight) == pytest.approx(4 + 32 / 34, abs=0.1)
    assert checksum(tmp_path / "out" / "model.safetensors") == checksum(tmp_path / "c" / "model.safetensors")


def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk: Path) -> None:
    from shoestring.errors import DiskFull

    config = ModelConfig(vocabulary=4000, width=64, layers=2, heads=2, context=64)
    with pytest.raises(DiskFull, match="no space left"):
        save(Transformer(config).initialise(0), None, small_disk / "model")
    assert list(small_disk.iterdir()) == []
