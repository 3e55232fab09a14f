"""Logits equal to transformers', both ways: their folder read by us, our folder opened by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring.architecture import ModelConfig, RopeScaling
from shoestring.errors import FileError
from shoestring.model import Transformer, load_model, read_config
from shoestring.model.checkpoint import write
from shoestring.model.checkpoint.families import writing_family

transformers = pytest.importorskip("transformers")

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 500.0,
}
GPT2 = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "activation_function": "gelu"}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**SHAPE, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}),
    "llama tied": ("Llama", {**SHAPE, "tie_word_embeddings": True}),
    "llama 3 rope": ("Llama", {**SHAPE, "rope_parameters": LLAMA3}),
    "llama wide heads": ("Llama", {**SHAPE, "head_dim": 16}),
    "mistral": ("Mistral", {**SHAPE, "sliding_window": None}),
    "qwen2": ("Qwen2", SHAPE),
    "qwen3": ("Qwen3", {**SHAPE, "head_dim": 16}),
    "gpt2": ("GPT2", GPT2),
}
OURS: dict[str, dict[str, Any]] = {
    "llama": {},
    "untied": {"tied": False, "rope_base": 5000.0},
    "llama3": {"rope_scaling": RopeScaling(factor=8.0, original_context=32)},
    "wide": {"head_size": 16},
    "qwen2": {"attention_bias": True},
    "qwen3": {"head_norm": True, "head_size": 16},
    "gpt2": {"position": "learned", "norm": "layernorm", "feed_forward": "gelu", "kv_heads": 4},
}


def _tokens(length: int = 40) -> torch.Tensor:
    return torch.randint(0, 97, (2, length), generator=torch.Generator().manual_seed(1))


def _stir(model: torch.nn.Module) -> None:
    """Random weights, norms and query biases too, so that none is invisible. GPT-2's biases stay zero."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if ("transformer.h" in name and name.endswith("bias")) or name == "transformer.ln_f.bias":
            continue
        parameter.data = parameter.data + 0.2 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", THEIRS)
def test_reads_what_transformers_wrote(name: str, tmp_path: Path) -> None:
    kind, settings = THEIRS[name]
    config = getattr(transformers, f"{kind}Config")(**settings)
    theirs = getattr(transformers, f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config).eval()
    _stir(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(ours(_tokens()), theirs(_tokens()).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", OURS)
def test_transformers_opens_what_we_wrote(name: str, tmp_path: Path) -> None:
    ours = Transformer(_config(**OURS[name])).initialise(3).eval()
    _stir(ours)
    write(ours, None, tmp_path)
    assert read_config(tmp_path) == ours.config
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.dtype == torch.float32
    with torch.inference_mode():
        torch.testing.assert_close(theirs(_tokens()).logits, ours(_tokens()), atol=1e-4, rtol=0)
        assert torch.equal(load_model(tmp_path)(_tokens()), ours(_tokens()))


def test_reads_shards(tmp_path: Path) -> None:
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    with torch.inference_mode():
        torch.testing.assert_close(load_model(tmp_path)(_tokens()), theirs(_tokens()).logits, atol=1e-4, rtol=0)
    shards[1].unlink()
    with pytest.raises(FileError, match=r"a shard that .* names is missing"):
        load_model(tmp_path)


def test_reads_rope_where_transformers_4_put_it(tmp_path: Path) -> None:
    write(Transformer(_config(rope_base=5000.0)), None, tmp_path)
    import json

    file = tmp_path / "config.json"
    record = json.loads(file.read_text())
    del record["rope_parameters"]
    file.write_text(json.dumps(record))
    assert read_config(tmp_path).flat.rope_base == 5000.0
    record["rope_scaling"] = {k: v for k, v in LLAMA3.items() if k != "rope_theta"}
    file.write_text(json.dumps(record))
    assert read_config(tmp_path).flat.rope_scaling == RopeScaling(factor=8.0, original_context=32)


@pytest.mark.parametrize(
    "odd",
    [
        {"position": "none"},
        {"norm": "layernorm"},
        {"feed_forward": "gelu"},
        {"attention_bias": True, "head_norm": True},
        {"position": "learned", "norm": "layernorm", "feed_forward": "gelu", "kv_heads": 2},
    ],
)
def test_shapes_of_no_family_are_written_in_our_own_form(odd: dict[str, Any], tmp_path: Path) -> None:
    ours = Transformer(_config(**odd)).initialise(4).eval()
    assert writing_family(ours.config, False).architectures == ("ShoestringForCausalLM",)
    write(ours, None, tmp_path)
    assert read_config(tmp_path) == ours.config
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path)(_tokens()), ours(_tokens()))


def _config(**settings: Any) -> ModelConfig:
    base = {"vocabulary": 97, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "feed_forward_width": 48, "context": 64}
    return ModelConfig(**{**base, **settings})
