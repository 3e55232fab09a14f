"""Adapters: what they compute, that merging is exact, that PEFT opens the files and we open PEFT's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from shoestring.architecture import ModelConfig
from shoestring.errors import FileError, SettingError
from shoestring.model import PackedLinear, Transformer, linears, save
from shoestring.tokenizer import Tokenizer
from shoestring.tune import adapters, add_lora, load_adapter, merge, save_adapter, trainable_parameters
from shoestring.tune.cost import adapter_parameters, matrices


def stir(model: Transformer, seed: int = 5) -> None:
    """Give the adapters something to say."""
    generator = torch.Generator().manual_seed(seed)
    for layer in adapters(model).values():
        layer.second.data = torch.randn(layer.second.shape, generator=generator) * 0.1


def packed(model: Transformer, bits: int = 4) -> Transformer:
    """All matrices rounded to a few bits, a scale for each output."""
    for block in model.blocks:
        for name, linear in linears(block).items():
            weight = linear.weight.detach()
            scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            layer = PackedLinear.from_parts((weight / scale).round().to(torch.int8), scale, None, bits)
            parent, _, leaf = name.rpartition(".")
            setattr(block.get_submodule(parent), leaf, layer)
    return model


def test_begins_at_the_model_itself(model: Transformer, batch_BT: torch.Tensor) -> None:
    before = model(batch_BT)
    found = add_lora(model, rank=3)
    assert len(found) == 2 * 7
    assert torch.equal(model(batch_BT), before)
    assert trainable_parameters(model) == adapter_parameters(model.config, 3, list(matrices(model.config)))
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad} == {"first", "second"}


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_forward_and_merge_are_the_formula(model: Transformer, batch_BT: torch.Tensor, rank_stabilised: bool) -> None:
    weights = {name: p.clone() for name, p in model.named_parameters()}
    add_lora(model, rank=4, alpha=6, rank_stabilised=rank_stabilised)
    stir(model)
    scale = 6 / (2 if rank_stabilised else 4)
    expected = Transformer(model.config)
    expected.load_state_dict(weights, strict=False)
    for name, layer in adapters(model).items():
        expected.get_submodule(name).weight.data += scale * layer.second.detach() @ layer.first.detach()
    adapted = model(batch_BT)
    torch.testing.assert_close(adapted, expected(batch_BT), rtol=1e-4, atol=1e-5)
    assert merge(model) == 14
    assert not adapters(model)
    torch.testing.assert_close(model(batch_BT), adapted, rtol=1e-4, atol=1e-5)
    assert set(model.state_dict()) == set(expected.state_dict())
    assert all(p.requires_grad for p in model.parameters())


def test_the_draw_follows_the_seed(model: Transformer) -> None:
    first = {name: layer.first.detach().clone() for name, layer in add_lora(model, seed=1).items()}
    bound = 1 / math.sqrt(32)
    assert all(a.abs().max() <= 1 / math.sqrt(a.shape[1]) for a in first.values())
    assert first["blocks.0.mixer.query"].std() == pytest.approx(bound / math.sqrt(3), rel=0.2)
    again = add_lora(Transformer(model.config).initialise(), seed=1)
    assert all(torch.equal(first[name], layer.first) for name, layer in again.items())


def test_zeros_stay_and_merging_is_still_exact(model: Transformer, batch_BT: torch.Tensor) -> None:
    weight = model.blocks[0].mixer.query.weight
    weight.data[:, ::2] = 0
    add_lora(model, keep_zeros=True)
    found = adapters(model)
    assert [name for name, layer in found.items() if layer.kept is not None] == ["blocks.0.mixer.query"]
    stir(model)
    adapted = model(batch_BT)
    merge(model)
    torch.testing.assert_close(model(batch_BT), adapted, rtol=1e-4, atol=1e-5)
    assert (weight[:, ::2] == 0).all()
    assert (weight[:, 1::2] != 0).all()


def test_zeros_are_filled_when_not_kept(model: Transformer) -> None:
    model.blocks[0].mixer.query.weight.data[:, ::2] = 0
    add_lora(model)
    stir(model)
    merge(model)
    assert (model.blocks[0].mixer.query.weight != 0).all()


def test_a_packed_base(model: Transformer, batch_BT: torch.Tensor) -> None:
    packed(model)
    plain = model(batch_BT)
    add_lora(model, rank=4)
    torch.testing.assert_close(model(batch_BT), plain)
    stir(model)
    adapted = model(batch_BT)
    adapted.sum().backward()
    assert all(layer.first.grad is not None and layer.first.grad.abs().sum() > 0 for layer in adapters(model).values())
    merge(model)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    torch.testing.assert_close(model(batch_BT), adapted, rtol=1e-4, atol=1e-5)


def test_dropout_only_in_training(model: Transformer, batch_BT: torch.Tensor) -> None:
    add_lora(model, dropout=0.5)
    stir(model)
    assert torch.equal(model(batch_BT), model(batch_BT))
    model.train()
    assert not torch.equal(model(batch_BT), model(batch_BT))


@pytest.mark.parametrize(
    ("targets", "count"), [(["query"], 2), (["mixer.query", "down"], 4), (["all"], 14), (["up", "feed_forward.up"], 2)]
)
def test_targets(model: Transformer, targets: list[str], count: int) -> None:
    assert len(add_lora(model, targets=targets)) == count


def test_bad_targets(model: Transformer) -> None:
    with pytest.raises(SettingError, match="'q_proj' is no matrix of the model"):
        add_lora(model, targets=["q_proj"])
    with pytest.raises(SettingError, match="did you mean 'query'"):
        add_lora(model, targets=["querry"])
    add_lora(model)
    with pytest.raises(SettingError, match="adapters already"):
        add_lora(model)


@pytest.mark.parametrize("change", [{}, {"attention_bias": True}, {"head_norm": True}])
def test_peft_opens_our_file(tmp_path: Path, tokenizer: Tokenizer, batch_BT: torch.Tensor, change: dict) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = ModelConfig(**{**model_settings(), **change})
    model = Transformer(config).initialise(2).eval()
    save(model, tokenizer, tmp_path / "base")
    add_lora(model, rank=4, alpha=8, rank_stabilised=True)
    stir(model)
    (tmp_path / "adapter").mkdir()
    save_adapter(model, tmp_path / "adapter", "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(batch_BT).logits, model(batch_BT), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(theirs(batch_BT).logits, Transformer(config).initialise(2)(batch_BT), atol=1e-2)


def test_we_open_pefts_file(tmp_path: Path, tokenizer: Tokenizer, model: Transformer, batch_BT: torch.Tensor) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    save(model, tokenizer, tmp_path / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"])).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    theirs.save_pretrained(tmp_path / "adapter")
    found = load_adapter(model, tmp_path / "adapter")
    assert len(found) == 4
    with torch.no_grad():
        torch.testing.assert_close(model(batch_BT), theirs(batch_BT).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", ["gpt2", "own"])
def test_other_shapes_go_there_and_back(tmp_path: Path, batch_BT: torch.Tensor, shape: str) -> None:
    own = {"position": "learned", "feed_forward": "gelu", "norm": "layernorm" if shape == "gpt2" else "rmsnorm", "kv_heads": 4}
    settings = {key: value for key, value in model_settings().items() if key != "feed_forward_width"}
    model = Transformer(ModelConfig(**{**settings, **own})).initialise(3).eval()
    add_lora(model, rank=2, targets=["query", "up"])
    stir(model)
    save_adapter(model, tmp_path)
    other = Transformer(model.config).initialise(3).eval()
    load_adapter(other, tmp_path)
    assert torch.equal(other(batch_BT), model(batch_BT))


def model_settings() -> dict:
    return {"vocabulary": 258, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "feed_forward_width": 48, "context": 64}


def test_broken_adapters(tmp_path: Path, model: Transformer) -> None:
    add_lora(model, rank=2)
    save_adapter(model, tmp_path)
    merge(model)
    with pytest.raises(ValueError, match="no adapters"):
        save_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())

    def refused(says: str, **change: object) -> None:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(FileError, match=says) as caught:
            load_adapter(Transformer(model.config).initialise(), tmp_path)
        assert "\n" not in str(caught.value)

    refused("peft_type is 'IA3'", peft_type="IA3")
    refused("use_dora", use_dora=True)
    refused("bias is 'all'", bias="all")
    refused("r must be", r="many")
    refused("expected", r=3)
    other = Transformer(model.config.with_(layers=1)).initialise()
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match="belongs to no matrix"):
        load_adapter(other, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(FileError, match="not whole safetensors"):
        load_adapter(Transformer(model.config).initialise(), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(FileError, match="no such file"):
        load_adapter(Transformer(model.config).initialise(), tmp_path)
    with pytest.raises(FileError, match="no such file"):
        load_adapter(model, tmp_path / "absent")
