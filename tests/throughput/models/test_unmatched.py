"""Weights and config.json that do not match: an error that names the tensors and the key, or a record of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from plumbline.core.errors import UserError
from plumbline.throughput.base import BaseSpec, base
from plumbline.throughput.engines.interface import Shape, load
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.load import load_leniently, load_transformers
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.models.unmatched import listed
from plumbline.throughput.models.weights import step_weights
from throughput.small_models import CODE, write_corpus, write_random

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def saved(folder: Path, kind: str, sizes: dict[str, Any], changes: dict[str, Any]) -> Path:
    """A model of this kind, and a config.json with `changes` that its weights know nothing of."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **ENDS)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def manifest(folder: Path, **more: Any) -> Manifest:
    return Manifest(variant="v", method="none", folder=str(folder), **more)


LLAMA = SIZES | {"intermediate_size": 48}


@pytest.mark.parametrize(
    ("kind", "sizes", "changes", "names", "fix"),
    [
        ("llama", LLAMA | {"mlp_bias": True}, {"mlp_bias": False}, "mlp.up_proj.bias (2", "mlp_bias: true"),
        ("llama", LLAMA | {"attention_bias": True}, {"attention_bias": False}, "q_proj.bias", "attention_bias: true"),
        ("llama", LLAMA, {"mlp_bias": True}, "lacks model.layers.*.mlp.down_proj.bias", "mlp_bias: false"),
        ("llama", LLAMA, {"num_hidden_layers": 1}, "layers.1.mlp", "num_hidden_layers: 2"),
        ("llama", LLAMA, {"num_hidden_layers": 3}, "layers.2.mlp", "num_hidden_layers: 2"),
        ("llama", LLAMA, {"vocab_size": 310}, "embed_tokens.weight (stored [300, 32]", "vocab_size: 300"),
        ("llama", LLAMA | {"tie_word_embeddings": True}, {"tie_word_embeddings": False}, "lacks lm_head", "tie_word"),
        ("gpt2", GPT2, {"n_positions": 64}, "transformer.wpe.weight (stored [32, 32]", "n_positions: 32"),
        ("gpt2", GPT2, {"n_layer": 1}, "transformer.h.1.", "n_layer: 2"),
        ("stablelm", LLAMA | {"use_qkv_bias": True}, {"use_qkv_bias": False}, "q_proj.bias", "use_qkv_bias: true"),
        ("stablelm", LLAMA | {"qk_layernorm": True}, {"qk_layernorm": False}, "layernorm", "qk_layernorm: true"),
    ],
)
def test_what_does_not_match_is_named_with_the_key_that_would_match(
    tmp_path: Path, kind: str, sizes: dict[str, Any], changes: dict[str, Any], names: str, fix: str
) -> None:
    folder = saved(tmp_path, kind, sizes, changes)
    with pytest.raises(UserError) as error:
        load_transformers(manifest(folder), torch.float32, CPU)
    assert names in str(error.value)
    assert fix in str(error.value)
    assert "throughput.model.strict: false" in str(error.value)
    assert "\n" not in str(error.value)


def made(folder: Path, tmp_path: Path, *, strict: bool) -> Manifest:
    text = {"window": 16, "calibration_windows": 4, "evaluation_windows": 4}
    spec = BaseSpec(
        **CODE,
        model={"source": "path", "chosen": {"path": str(folder)}},
        strict=strict,
        text=text,
        seed=0,
        fingerprint=[],
    )
    output = tmp_path / "models" / "base" / "manifest.json"
    base(spec, best=[], corpus=[write_corpus(tmp_path / "corpus")], output=output, device="cpu")
    return read_manifest(output)


def test_unused_tensors_are_recorded_and_left_out_by_every_engine_where_the_config_allows_them(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "model")
    clean = made(folder, tmp_path, strict=True)
    bias = "model.layers.0.mlp.up_proj.bias"
    tensors = load_file(folder / "model.safetensors") | {bias: torch.ones(48)}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=f"{bias}; set mlp_bias: true"):
        made(folder, tmp_path, strict=True)
    found = made(folder, tmp_path, strict=False)
    assert (found.unused, found.missing) == ([bias], [])
    assert any(bias in note for note in found.notes)
    assert found.perplexity == clean.perplexity
    read = [sum(one.numel() for one in step_weights(folder, torch.float32, of.unused)) for of in (clean, found)]
    assert read[0] - read[1] == 48
    tokens = torch.arange(20).view(2, 10)
    config = EngineConfig(dtype="float32", attention="sdpa", threads=1, compile=False)
    shape = Shape(batch=2, prompt=10, generated=2)
    lean, generate = (load(name)(found, CPU, config, shape).logits(tokens) for name in ("lean", "generate"))
    torch.testing.assert_close(lean, generate, rtol=1e-4, atol=1e-5)


def test_missing_weights_that_the_config_allows_are_drawn_alike_in_every_process(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    lost = "model.layers.0.mlp.up_proj.weight"
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors")
    found = made(folder, tmp_path, strict=False)
    assert found.missing == [lost]
    first, _ = load_leniently(found, torch.float32, CPU)
    torch.manual_seed(9)
    second = load_transformers(found, torch.float32, CPU)
    assert torch.equal(first.get_parameter(lost), second.get_parameter(lost))
    assert float(first.get_parameter(lost).std()) > 0


def test_a_head_of_its_own_is_used_by_every_engine_although_the_config_ties_it(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "model")
    clean = made(folder, tmp_path, strict=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    found = made(folder, tmp_path, strict=True)
    assert found.perplexity == clean.perplexity
    assert any("head of its own" in note for note in found.notes)
    tokens = torch.arange(20).view(2, 10)
    engine = EngineConfig(dtype="float32", attention="sdpa", threads=1, compile=False)
    lean = load("lean")(found, CPU, engine, Shape(batch=2, prompt=10, generated=2))
    expected = load_transformers(found, torch.float32, CPU)(tokens).logits[:, -1]
    torch.testing.assert_close(lean.logits(tokens), expected, rtol=1e-4, atol=1e-5)


def test_constants_of_older_files_are_no_weights(tmp_path: Path) -> None:
    folder = saved(tmp_path, "gpt2", GPT2, {})
    tensors = load_file(folder / "model.safetensors")
    for layer in range(2):
        tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32).tril()
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, folder / "model.safetensors")
    load_transformers(manifest(folder), torch.float32, CPU)


def test_numbers_in_eight_bits_are_refused(tmp_path: Path) -> None:
    folder = write_random(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=f"{name} is stored as float8_e4m3fn; only unquantised"):
        load_transformers(manifest(folder), torch.float32, CPU)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="the model is quantised"):
        load_transformers(manifest(folder), torch.float32, CPU)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_git_lfs_pointer_is_named_with_the_way_to_fetch_the_file(tmp_path: Path, name: str) -> None:
    folder = write_random(tmp_path / "model")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    with pytest.raises(UserError, match=rf"{name}: is a Git LFS pointer, not the file itself; run `git lfs pull`"):
        made(folder, tmp_path, strict=True)


def test_names_of_all_layers_are_listed_once() -> None:
    names = [f"h.{layer}.{part}" for part in "abcdef" for layer in range(3)]
    assert (
        listed(names) == "h.*.a (3 tensors), h.*.b (3 tensors), h.*.c (3 tensors), h.*.d (3 tensors) and 2 more kinds"
    )
    assert listed(["h.1.a"]) == "h.1.a"
