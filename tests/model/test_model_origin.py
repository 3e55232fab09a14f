"""What a checkpoint's files say is kept from loading to saving, and only what changed is changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring.errors import FileError
from shoestring.measure import Meter
from shoestring.measure.hardware import find
from shoestring.model import (
    ModelConfig,
    Origin,
    PackedLinear,
    Pretrained,
    Transformer,
    linears,
    load,
    load_model,
    load_tokenizer,
    save,
    write,
)
from shoestring.technique import Task, Watch
from shoestring.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

LLAMA = {
    "vocab_size": 260,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.03,
    "bos_token_id": 1,
    "eos_token_id": [256, 257],
    "pad_token_id": 3,
    "name_of_our_own": {"nested": [1, 2.5, None]},
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 500.0,
}
GPT2 = {"vocab_size": 260, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "activation_function": "gelu"}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama 3": ("LlamaForCausalLM", {**LLAMA, "rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", {**LLAMA, "sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", {**LLAMA, "max_window_layers": 7}),
    "qwen3": ("Qwen3ForCausalLM", {**LLAMA, "head_dim": 16}),
    "gpt2": ("GPT2LMHeadModel", {**GPT2, "summary_type": "mean", "resid_pdrop": 0.2}),
}
GENERATION = {
    "bos_token_id": 1,
    "eos_token_id": [256, 258],
    "pad_token_id": 3,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
}


def tokenizer() -> Tokenizer:
    return Tokenizer.from_ranks({bytes([b]): b for b in range(256)}, r"\S+|\s+", ["<|endoftext|>", "<|im_end|>"])


def theirs(folder: Path, kind: str, settings: dict[str, Any]) -> Path:
    """A folder as transformers writes it, with a tokenizer and settings for generation."""
    kind_of_config = kind.replace("ForCausalLM", "Config").replace("LMHeadModel", "Config")
    made = getattr(transformers, kind)(getattr(transformers, kind_of_config)(**settings))
    made.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    tokenizer().save(folder)
    return folder


def as_transformers_reads(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    config = transformers.AutoConfig.from_pretrained(folder).to_dict()
    del config["_name_or_path"]
    return config, transformers.GenerationConfig.from_pretrained(folder).to_dict()


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_reads_the_same_of_ours_as_of_the_source(name: str, tmp_path: Path) -> None:
    source = theirs(tmp_path / "source", *FAMILIES[name])
    (source / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
    model, words = load(source)
    assert model.origin is not None
    assert model.origin.source == str(source)
    assert not model.origin.changed
    save(model, words, tmp_path / "ours")
    again, words = load(tmp_path / "ours")
    save(again, words, tmp_path / "again")
    for folder in ("ours", "again"):
        assert as_transformers_reads(tmp_path / folder) == as_transformers_reads(source)
        assert (tmp_path / folder / "special_tokens_map.json").read_text() == '{"eos_token": "<|endoftext|>"}'


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3"])
def test_packing_changes_the_packing_alone(name: str, tmp_path: Path) -> None:
    source = theirs(tmp_path / "source", *FAMILIES[name])
    model, words = load(source)
    for block in model.blocks:
        for matrix, layer in linears(block).items():
            assert isinstance(layer, torch.nn.Linear)
            weight, (parent, _, leaf) = layer.weight.detach(), matrix.rpartition(".")
            scale = weight.abs().amax(1, keepdim=True) / 7
            packed = PackedLinear.from_parts((weight / scale).round(), scale, None, 4, None, layer.bias)
            setattr(block.get_submodule(parent), leaf, packed)
    save(model, words, tmp_path / "ours")
    (before, generation), (after, kept) = as_transformers_reads(source), as_transformers_reads(tmp_path / "ours")
    assert generation == kept
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == {"dtype", "quantization_config"}


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_the_chat_template_is_kept_wherever_it_stood(file: str, tmp_path: Path) -> None:
    source = theirs(tmp_path / "source", "LlamaForCausalLM", LLAMA)
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    config = json.loads((source / "tokenizer_config.json").read_text()) | {"model_max_length": 77, "own": {"a": 1}}
    if file.endswith("json"):
        config["chat_template"] = template
    else:
        (source / file).write_text(template)
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    model, words = load(source)
    save(model, words, tmp_path / "ours")
    before, after = (transformers.AutoTokenizer.from_pretrained(place) for place in (source, tmp_path / "ours"))
    assert after.chat_template == before.chat_template == template
    assert after.model_max_length == before.model_max_length == 77
    assert after.special_tokens_map == before.special_tokens_map
    assert json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text())["own"] == {"a": 1}


def test_entries_stay_as_they_are_spelled(tmp_path: Path) -> None:
    """A file of transformers 4 stays one: nothing that was absent appears, but for the dtype's second name."""
    source = theirs(tmp_path / "source", "LlamaForCausalLM", LLAMA)
    file = source / "config.json"
    record = json.loads(file.read_text())
    for key in ("rope_parameters", "dtype", "head_dim", "use_cache"):
        record.pop(key, None)
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    record |= {"rope_theta": 500.0, "rope_scaling": scaling, "torch_dtype": "float32", "auto_map": {"AutoConfig": "code.Config"}}
    file.write_text(json.dumps(record))
    model, words = load(source)
    save(model, words, tmp_path / "ours", torch.bfloat16)
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    del record["auto_map"]
    assert written == {**record, "torch_dtype": "bfloat16", "dtype": "bfloat16"}


def test_what_changed_is_written_and_nothing_else(tmp_path: Path) -> None:
    source = theirs(tmp_path / "source", "LlamaForCausalLM", {**LLAMA, "rope_parameters": LLAMA3})
    model, words = load(source)
    cut = model.config.with_(layers=1, rope_scaling=None)
    smaller = Transformer(cut).initialise().eval()
    smaller.origin = model.origin
    save(smaller, words, tmp_path / "ours")
    before, after = (json.loads((place / "config.json").read_text()) for place in (source, tmp_path / "ours"))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {"num_hidden_layers", "rope_parameters", "rope_theta", "torch_dtype"}
    assert load_model(tmp_path / "ours").config == cut


def test_a_model_made_here_has_no_origin_and_names_its_end(tmp_path: Path) -> None:
    model = Transformer(ModelConfig(vocabulary=260, width=32, layers=1, heads=2, context=32)).initialise()
    assert model.origin is None
    assert not any("origin" in name for name in model.state_dict())
    save(model, tokenizer(), tmp_path / "c")
    assert not (tmp_path / "c" / "origin.json").exists()
    assert json.loads((tmp_path / "c" / "generation_config.json").read_text())["eos_token_id"] == [256, 257]
    assert json.loads((tmp_path / "c" / "config.json").read_text())["eos_token_id"] == 256
    loaded = load_model(tmp_path / "c").origin
    assert loaded is not None
    assert loaded.source == ""  # a step's folder may be removed: it is no name
    again = load_model(tmp_path / "c")
    save(again, tokenizer(), tmp_path / "d", torch.bfloat16)
    after = load_model(tmp_path / "d").origin
    assert after is not None
    assert (after.source, after.dtype) == ("", torch.bfloat16)  # a dtype that was asked for counts in later steps too


def test_a_family_that_can_t_be_kept_keeps_the_ids(tmp_path: Path) -> None:
    """GPT-2 with layers of another family's kind is written in our own form."""
    source = theirs(tmp_path / "source", "GPT2LMHeadModel", {**GPT2, "eos_token_id": [256, 257]})
    model, words = load(source)
    odd = Transformer(model.config.with_(head_norm=True)).initialise().eval()
    odd.origin = model.origin
    save(odd, words, tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["architectures"] == ["ShoestringForCausalLM"]
    assert "summary_type" not in written
    assert written["eos_token_id"] == [256, 257]


def test_the_source_is_passed_from_step_to_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's folder may be removed: what it writes names the source, by its absolute path."""
    source = theirs(tmp_path / "source", "LlamaForCausalLM", {**LLAMA, "dtype": "bfloat16"})
    transformers.LlamaForCausalLM.from_pretrained(source).to(torch.bfloat16).save_pretrained(source)
    monkeypatch.chdir(tmp_path)
    hardware = find("cpu")
    task, watch = Task(tmp_path / "one", tmp_path / "scratch", hardware), Watch(Meter(hardware), lambda text: None)
    Pretrained(source="source").apply({}, task, watch)
    model, words = load(tmp_path / "one")
    assert model.origin is not None
    assert (model.origin.source, model.origin.changed, model.origin.dtype) == (str(source), False, torch.bfloat16)
    save(model, words, tmp_path / "two")
    after = load_model(tmp_path / "two").origin
    assert after is not None
    assert (after.source, after.changed, after.dtype) == (str(source), True, torch.bfloat16)
    assert replace(after, changed=False, config=model.origin.config) == model.origin


def test_weights_alone_are_written_without_a_tokenizer(tmp_path: Path) -> None:
    source = theirs(tmp_path / "source", "LlamaForCausalLM", LLAMA)
    (source / "generation_config.json").unlink()
    write(load_model(source), None, tmp_path)
    assert not (tmp_path / "generation_config.json").exists()
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [256, 257]


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        (None, None, {256, 257}),
        (5, None, {5, 256, 257}),
        ([5, 6], [7, 258], {5, 6, 7, 256, 257}),
        (-1, [260, 10**30], {256, 257}),
    ],
)
def test_the_ends_of_an_answer_are_a_union(config: Any, generation: Any, ends: set[int], tmp_path: Path) -> None:
    """The tokenizer's own, the usual names that are special, both files'; ids beyond the vocabulary of 258 are left out."""
    tokenizer().save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": config}))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert load_tokenizer(tmp_path).ends == ends


def test_only_special_tokens_end_an_answer_by_their_name() -> None:
    record = tokenizer().record
    record["added_tokens"] = [{**token, "special": token["content"] != "<|im_end|>"} for token in record["added_tokens"]]
    assert Tokenizer(record, {"eos_token": "<|endoftext|>"}).ends == {256}


@pytest.mark.parametrize("value", ["2", [2, None], 1.5, True, {"a": 1}, [[2]]])
def test_an_end_that_is_no_number_is_refused(value: Any, tmp_path: Path) -> None:
    tokenizer().save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(FileError, match=r"generation_config\.json: eos_token_id is .*; it must be a number or a list of numbers"):
        load_tokenizer(tmp_path)


def test_an_origin_is_plain_and_frozen() -> None:
    origin = Origin("somewhere")
    with pytest.raises(AttributeError):
        origin.source = "else"  # type: ignore[misc]
