"""Packed checkpoints: ours opened by compressed-tensors through transformers, theirs by us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from shoestring.architecture import ModelConfig
from shoestring.errors import FileError
from shoestring.model import Origin, PackedLinear, Transformer, linears, load_model, packed_bits, write

CONFIG = ModelConfig(vocabulary=97, width=64, layers=2, heads=4, kv_heads=2, feed_forward_width=96, context=64)


def packed_model(
    bits: int = 4, group: int | None = 32, symmetric: bool = True, config: ModelConfig = CONFIG, layers: str = ""
) -> Transformer:
    """A random model whose block matrices are rounded to the nearest code."""
    model = Transformer(config).initialise(5).eval()
    for number, block in enumerate(model.blocks):
        for name, linear in linears(block).items():
            assert isinstance(linear, nn.Linear)
            if layers and f"{number}.{name}" != layers:
                continue
            weight = linear.weight.detach() * 5
            groups = weight.view(weight.shape[0], -1, group or weight.shape[1])
            high = 2 ** (bits - 1) - 1
            if symmetric:
                scale, zero = groups.abs().amax(-1) / high, None
            else:
                low, top = groups.amin(-1), groups.amax(-1)
                scale = (top - low) / (2**bits - 1)
                zero = (-(2 ** (bits - 1)) - low / scale).round().clamp(-high - 1, high)
            codes = groups / scale[..., None] + (0 if zero is None else zero[..., None])
            codes = codes.round().clamp(-high - 1, high).view_as(weight)
            bias = None if linear.bias is None else linear.bias.detach() + 0.1
            packed = PackedLinear.from_parts(codes, scale, zero, bits, group, bias)
            parent, _, leaf = name.rpartition(".")
            setattr(block.get_submodule(parent), leaf, packed)
    return model


def tokens() -> torch.Tensor:
    return torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(1))


CASES = {
    "int4 group 32": {},
    "int4 with zeros": {"symmetric": False},
    "int8 channel": {"bits": 8, "group": None},
    "int3 with zeros": {"bits": 3, "symmetric": False},
    "int2": {"bits": 2},
    "one layer only": {"layers": "1.feed_forward.up"},
    "qwen2 with biases": {"config": CONFIG.with_(attention_bias=True)},
}


# `run_compressed` can only be given beside the file's own settings, and transformers warns whoever gives both.
@pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_round_trip_is_bit_exact_and_transformers_agrees(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    ours = packed_model(**CASES[name])
    facts = write(ours, None, tmp_path, torch.float32)
    back = load_model(tmp_path)
    for (key, tensor), (same_key, same) in zip(sorted(ours.state_dict().items()), sorted(back.state_dict().items())):
        assert key == same_key
        assert tensor.dtype == same.dtype
        assert torch.equal(tensor, same), key
    assert facts["disk_bytes"] == sum(f.stat().st_size for f in tmp_path.iterdir())
    assert packed_bits(tmp_path) == {layer.bits for layer in ours.modules() if isinstance(layer, PackedLinear)}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=transformers.CompressedTensorsConfig(run_compressed=False)
    ).eval()
    with torch.inference_mode():
        assert torch.equal(back(tokens()), ours(tokens()))
        torch.testing.assert_close(theirs(tokens()).logits, ours(tokens()), atol=1e-3, rtol=0)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", ["group", "channel"])
def test_reads_what_compressed_tensors_wrote(symmetric: bool, strategy: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, QuantizationStatus

    ours = packed_model(symmetric=symmetric, group=32 if strategy == "group" else None)
    write(ours, None, tmp_path, torch.float32)
    arguments = QuantizationArgs(
        num_bits=4, symmetric=symmetric, strategy=strategy, group_size=32 if strategy == "group" else None
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    from safetensors.torch import load_file

    written = load_file(tmp_path / "model.safetensors")
    module = "model.layers.0.self_attn.q_proj."
    layer = ours.blocks[0].mixer.query
    zeros = layer.zeros()
    parts = {"weight": layer.weight_rows(), "weight_scale": layer.weight_scale}
    if zeros is not None:
        parts["weight_zero_point"] = zeros
    theirs = PackedQuantizationCompressor.compress(parts, scheme)
    for leaf, tensor in theirs.items():
        if leaf != "weight_shape":
            assert torch.equal(tensor, written[module + leaf]), leaf
    config = json.loads((tmp_path / "config.json").read_text())
    # What compressed-tensors itself would write as the configuration of this model.
    record = config["quantization_config"]
    record["config_groups"] = {"group_0": json.loads(scheme.model_dump_json())}
    record["quantization_status"] = QuantizationStatus.COMPRESSED.value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path)(tokens()), ours(tokens()))


def test_mixed_bits_are_two_groups(tmp_path: Path) -> None:
    ours = packed_model()
    other = packed_model(bits=8)
    ours.blocks[0].feed_forward.down = other.blocks[0].feed_forward.down
    write(ours, None, tmp_path, torch.float32)
    groups = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["config_groups"]
    assert groups["group_1"]["targets"] == ["model.layers.0.mlp.down_proj"]
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path)(tokens()), ours(tokens()))


def test_a_gpt2_shape_is_packed_in_our_own_form(tmp_path: Path) -> None:
    shape = {"position": "learned", "norm": "layernorm", "feed_forward": "gelu", "kv_heads": 4}
    ours = packed_model(config=ModelConfig(**{**CONFIG.model_dump(), **shape}))
    write(ours, None, tmp_path, torch.float32)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "shoestring"
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path)(tokens()), ours(tokens()))


def test_facts_count_bits_and_zeros(tmp_path: Path) -> None:
    dense = Transformer(CONFIG).initialise(0)
    for block in dense.blocks:
        block.feed_forward.up.weight.data.zero_()
    facts = write(dense, None, tmp_path / "d" if (tmp_path / "d").mkdir() is None else tmp_path, torch.bfloat16)
    up = 2 * 96 * 64
    assert facts["sparsity"] == pytest.approx(up / (2 * (64 * (64 + 32 + 32 + 64) + 3 * 96 * 64)))
    assert facts["bits_per_weight"] == 16
    (tmp_path / "p").mkdir()
    packed = write(packed_model(), None, tmp_path / "p")
    assert packed["bits_per_weight"] == 4 + 32 / 32
    assert packed["disk_bytes"] < facts["disk_bytes"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quant_method": "gptq"}, "quant_method is 'gptq'"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
        ({"config_groups": {}}, "no group of quantization_config targets it"),
    ],
)
def test_other_quantizations_are_refused_by_name(change: dict, said: str, tmp_path: Path) -> None:
    write(packed_model(), None, tmp_path, torch.float32)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=said):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "naive-quantized"}, "naive-quantized"),
        ({"input_activations": {"num_bits": 8}}, "quantized activations"),
        ({"weights": {"num_bits": 4, "type": "float", "strategy": "group"}}, "4 bits of float"),
    ],
)
def test_other_schemes_are_refused_by_name(change: dict, said: str, tmp_path: Path) -> None:
    write(packed_model(), None, tmp_path, torch.float32)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=said):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("made", "origin", "dtype"),
    [
        ("packed", None, torch.bfloat16),
        ("packed", torch.float32, torch.bfloat16),
        ("packed", torch.float16, torch.float16),
        ("dense", None, torch.float32),
        ("dense", torch.float32, torch.float32),
        ("dense", torch.bfloat16, torch.bfloat16),
        ("dense", torch.float16, torch.float16),
        ("too large for float16", torch.float16, torch.bfloat16),
        ("bfloat16", torch.float16, torch.bfloat16),
    ],
)
def test_what_is_not_packed_is_stored_as_it_came(
    made: str, origin: torch.dtype | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    ours = packed_model() if made == "packed" else Transformer(CONFIG).initialise(5)
    with torch.no_grad():
        if made.startswith("too"):
            ours.final_norm.weight[0] = 1e5
    if made == "bfloat16":
        ours.bfloat16()
    ours.origin = None if origin is None else Origin("somewhere", dtype=origin)
    write(ours, None, tmp_path)
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "model.safetensors")
    assert stored["model.embed_tokens.weight"].dtype == stored["model.norm.weight"].dtype == dtype
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
