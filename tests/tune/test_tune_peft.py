"""PEFT's adapters: what is honoured equals PEFT's own merge, what is not is refused by name, and a folder with one is a model."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring.architecture import ModelConfig
from shoestring.errors import FileError, SettingError, ShoestringError
from shoestring.model import Pretrained, Transformer, load, load_model, read_config, save
from shoestring.technique import State, Task, Watch
from shoestring.tokenizer import Tokenizer
from shoestring.tune import LoRA, add_lora, load_adapter, merge, merge_adapter, save_adapter
from tests.tune.test_tune_adapter import packed, stir

BATCH_BT = torch.arange(24).reshape(2, 12)


@pytest.fixture
def base(tmp_path: Path, tokenizer: Tokenizer, model: Transformer) -> Path:
    save(model, tokenizer, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    """One of ours, whose base is named relative to it."""
    made = load_model(base)
    add_lora(made, rank=3, alpha=5, targets=["query", "down"])
    stir(made)
    save_adapter(made, tmp_path / "adapter", "../base")
    return tmp_path / "adapter"


def change(folder: Path, **settings: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def pefts(tmp_path: Path, model: Any, **settings: Any) -> torch.Tensor:
    """Write an adapter by PEFT; the logits of its own merged model."""
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    theirs.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        return theirs.merge_and_unload()(BATCH_BT).logits


# One of the keys below matches nothing on purpose, and peft says so.
@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys:RuntimeWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "down_proj"], "lora_alpha": 5},
        {"target_modules": "all-linear", "use_rslora": True, "lora_dropout": 0.1, "init_lora_weights": "gaussian"},
        {"target_modules": r".*\.(k_proj|up_proj)"},
        {"target_modules": ["q_proj", "up_proj"], "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 5}},
        {"target_modules": ["q_proj", "up_proj"], "alpha_pattern": {r"model.layers.\d+.self_attn.q_proj": 40, "^up_proj": 9}},
        {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.0.self_attn.q_proj": 40}},
        {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": ["down_proj", "v_proj"], "exclude_modules": ["v_proj"]},
    ],
)
def test_logits_equal_pefts_merge(tmp_path: Path, base: Path, settings: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = pefts(tmp_path, model, r=3, **settings)
    with torch.no_grad():
        merged = load_model(tmp_path / "adapter")
        torch.testing.assert_close(merged(BATCH_BT), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(load_model(base)(BATCH_BT), expected, atol=1e-2)
        beside = load_model(base)
        load_adapter(beside, tmp_path / "adapter")
        torch.testing.assert_close(beside(BATCH_BT), expected, rtol=1e-4, atol=1e-4)
        save_adapter(beside, tmp_path / "again", str(base))
        torch.testing.assert_close(load_model(tmp_path / "again")(BATCH_BT), expected, rtol=1e-4, atol=1e-4)


def test_gpt2s_joined_matrix(tmp_path: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"position": "learned", "feed_forward": "gelu", "norm": "layernorm", "kv_heads": 4}
    model = Transformer(ModelConfig(vocabulary=258, width=32, layers=2, heads=4, context=64, **shape)).initialise(3)
    save(model, tokenizer, tmp_path / "base")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    expected = pefts(tmp_path, theirs, r=3, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path / "adapter")(BATCH_BT), expected, rtol=1e-4, atol=1e-4)


def test_a_folder_with_an_adapter_is_a_model(
    adapter: Path, base: Path, caplog: pytest.LogCaptureFixture, work: Callable[..., tuple[Task, Watch]], tmp_path: Path
) -> None:
    beside = load_model(base)
    load_adapter(beside, adapter)
    expected = beside(BATCH_BT)
    with caplog.at_level(logging.WARNING):
        merged, tokenizer = load(adapter)
    assert "adapter merged into 4 matrices" in caplog.text
    torch.testing.assert_close(merged(BATCH_BT), expected, rtol=1e-4, atol=1e-5)
    assert tokenizer.vocabulary == 258
    assert read_config(adapter) == merged.config
    step = Pretrained(source=str(adapter))
    key = step.outside()
    made = step.apply({}, *work("taken"))["checkpoint"]
    torch.testing.assert_close(load_model(made)(BATCH_BT), expected, rtol=1e-4, atol=1e-5)
    shutil.rmtree(base)
    save(Transformer(merged.config).initialise(9), tokenizer, base)
    assert step.outside() != key  # another base makes another model


def test_merge_adapter(tmp_path: Path, adapter: Path, base: Path, tokenizer: Tokenizer) -> None:
    save(load_model(base), tokenizer, tmp_path / "half", torch.bfloat16)
    out = merge_adapter(adapter, tmp_path / "out", tmp_path / "half")
    made = load_model(out)
    assert made.origin is not None
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    torch.testing.assert_close(made(BATCH_BT), load_model(adapter)(BATCH_BT), rtol=0.1, atol=0.1)
    whole = load_model(merge_adapter(adapter, tmp_path / "whole"))
    torch.testing.assert_close(whole(BATCH_BT), load_model(adapter)(BATCH_BT), rtol=1e-4, atol=1e-5)
    assert Tokenizer.open(out).vocabulary == 258
    with pytest.raises(SettingError, match="exists already"):
        merge_adapter(adapter, out)
    with pytest.raises(FileError, match=r"holds no adapter_config\.json"):
        merge_adapter(base, tmp_path / "none")


def test_the_command_that_merges(tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from shoestring.cli.models import tune

    tune("merge", str(adapter), tmp_path / "out", json=True)
    assert json.loads(capsys.readouterr().out) == {"checkpoint": str(tmp_path / "out")}
    with pytest.raises(SettingError, match="takes ADAPTER OUT and --base alone"):
        tune("merge", str(adapter), tmp_path / "again", data="text.txt")
    with pytest.raises(SettingError, match="--data: must be given"):
        tune("lora", str(adapter), tmp_path / "again")


def test_zeros_that_were_kept_stay(tmp_path: Path, tokenizer: Tokenizer, model: Transformer) -> None:
    for block in model.blocks:
        block.feed_forward.up.weight.data[:, ::2] = 0
    save(model, tokenizer, tmp_path / "base")
    made = load_model(tmp_path / "base")
    add_lora(made, rank=2, keep_zeros=True)
    stir(made)
    save_adapter(made, tmp_path / "adapter", "../base")
    merge(made)
    again = load_model(tmp_path / "adapter")
    assert torch.equal(again(BATCH_BT), made(BATCH_BT))
    assert (again.blocks[1].feed_forward.up.weight[:, ::2] == 0).all()


def test_the_base_that_is_named(tmp_path: Path, base: Path, state: State, work: Callable[..., tuple[Task, Watch]]) -> None:
    """The source, by way of a step's folder that may be removed; none where the weights are no longer the source's."""
    taken = Pretrained(source=str(base)).apply({}, *work("taken"))
    tuned = LoRA(steps=1, batch=1, context=16).apply(
        {"checkpoint": taken["checkpoint"], "tokens": state["tokens"]}, *work("tuned")
    )
    named = json.loads((tuned["checkpoint"] / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(base)
    shutil.rmtree(taken["checkpoint"])
    with torch.no_grad():
        torch.testing.assert_close(
            load_model(tuned["checkpoint"] / "adapter")(BATCH_BT), load_model(tuned["checkpoint"])(BATCH_BT), rtol=1e-4, atol=1e-4
        )
    again = load_model(tuned["checkpoint"])  # changed since it was read
    add_lora(again)
    save_adapter(again, tmp_path / "second")
    assert json.loads((tmp_path / "second" / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    with pytest.raises(FileError, match=r"names no base model; write its folder's path .* --base MODEL"):
        load_model(tmp_path / "second")


NAMES = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"something_of_tomorrow": 0}, "something_of_tomorrow is 0"),
        ({"something_of_tomorrow": "x" * 9000}, "something_of_tomorrow is 'xxx"),
        ({"peft_type": ["LORA"]}, "peft_type is"),
        ({"r": "many"}, "r must be a whole number above 0, got 'many'"),
        ({"r": True}, "r must be"),
        ({"r": 10**12}, "r must be"),
        ({"r": 10**8}, r"lora_A of .* is of shape \(3, 48\), expected \(100000000, 48\)"),
        ({"r": 4}, r"expected \(4, 48\)"),
        ({"lora_alpha": "5"}, "lora_alpha must be a number"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number"),
        ({"lora_dropout": 2}, "lora_dropout must be a number from 0 to 1"),
        ({"use_rslora": "yes"}, "use_rslora must be true or false"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern must be"),
        ({"alpha_pattern": {"(a+)+": 3}}, "alpha_pattern must be numbers by names"),
        ({"alpha_pattern": [1]}, "alpha_pattern must be"),
        ({"target_modules": ["q_proj", "down_proj", "nonsense"]}, "target_modules names 'nonsense', which is no matrix"),
        ({"target_modules": ["q_proj"]}, r"holds tensors of model\.layers\.0\.mlp\.down_proj, which is not what"),
        ({"target_modules": 5}, "target_modules must be names of modules"),
        ({"exclude_modules": "mlp.*"}, "exclude_modules must be a list"),
        ({"layers_to_transform": 0}, r"holds tensors of model\.layers\.1\."),
        ({"layers_to_transform": [0.5]}, "layers_to_transform must be numbers of layers"),
        ({"base_model_name_or_path": 7}, "base_model_name_or_path must be the name or path"),
        ({"base_model_name_or_path": ""}, "names no base model"),
        ({"base_model_name_or_path": "../gone"}, r"its base model '\.\./gone' is not on this machine; write its folder's path"),
        ({"base_model_name_or_path": "owner/gone"}, "is not on this machine; run: shoestring fetch owner/gone"),
        ({"base_model_name_or_path": "a\0b"}, "is not on this machine"),
        ({"base_model_name_or_path": "a/" * 5000}, "is not on this machine"),
        ({"base_model_name_or_path": "."}, "its base model is itself"),
        ({"revision": "abc"}, "needs revision 'abc'"),
    ],
)
def test_settings_that_are_refused(adapter: Path, settings: dict[str, Any], says: str) -> None:
    change(adapter, **settings)
    with pytest.raises(FileError, match=says) as caught:
        load_model(adapter)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_settings_that_ask_for_nothing(adapter: Path) -> None:
    expected = load_model(adapter)(BATCH_BT)
    change(adapter, use_dora=False, modules_to_save=None, loftq_config={}, inference_mode=True, revision="main", peft_version="9")
    change(adapter, megatron_core="megatron.core", runtime_config={"ephemeral_gpu_offload": False}, qalora_group_size=16, x=[])
    assert torch.equal(load_model(adapter)(BATCH_BT), expected)


def _rewritten(adapter: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t[NAMES].__setitem__((0, 0), float("nan")), "q_proj.lora_A.weight' holds NaN"),
        (lambda t: t.update({NAMES: torch.zeros(3, 31)}), r"of shape \(3, 31\), expected \(3, 32\)"),
        (lambda t: t.update({NAMES: torch.tensor(1.0)}), r"of shape \(\), expected \(3, 32\)"),
        (lambda t: t.update({NAMES: torch.zeros(3, 32, dtype=torch.int8)}), r"stored as torch\.int8"),
        (lambda t: t.pop(NAMES), r"lora_A of model\.layers\.0\.self_attn\.q_proj is missing"),
        (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.zeros(1)}), "belongs to no matrix"),
        (lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.zeros(1)}), "belongs to no matrix"),
        (lambda t: t.update({NAMES.replace("layers.0", "layers.9"): torch.zeros(1)}), "belongs to no matrix"),
        (lambda t: t.clear(), "holds no tensors"),
    ],
)
def test_tensors_that_are_refused(adapter: Path, edit: Callable[[dict[str, torch.Tensor]], Any], says: str) -> None:
    _rewritten(adapter, edit)
    with pytest.raises(FileError, match=says):
        load_model(adapter)


def test_files_that_are_refused(tmp_path: Path, adapter: Path, base: Path, tokenizer: Tokenizer, model: Transformer) -> None:
    weights, settings = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    whole = weights.read_bytes()
    for damaged in (b"", b"nothing", whole[:-5], whole[:100], whole[:9] + b"\xff" + whole[10:]):
        weights.write_bytes(damaged)
        with pytest.raises(ShoestringError, match=r"adapter_model\.safetensors"):
            load_model(adapter)
    weights.unlink()
    (adapter / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(FileError, match="pickled weights"):
        load_model(adapter)
    weights.write_bytes(whole)
    (adapter / "model.safetensors").write_bytes(b"x")
    with pytest.raises(FileError, match="holds a whole model and an adapter"):
        load_model(adapter)
    (adapter / "model.safetensors").unlink()
    save(packed(model), tokenizer, tmp_path / "packed")
    with pytest.raises(FileError, match=r"its base model is quantized \(blocks\.0\.\S+ is packed\)"):
        merge_adapter(adapter, tmp_path / "out", tmp_path / "packed")
    assert not (tmp_path / "out").exists()
    for broken in ("", "[]", "{", "[" * 100_000, '{"peft_type": "LORA", "r": NaN}'):
        settings.write_text(broken)
        with pytest.raises(FileError, match=r"adapter_config\.json"):
            load(adapter)
