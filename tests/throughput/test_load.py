import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import plumbline
from plumbline.core.errors import UserError
from plumbline.throughput.models import random
from plumbline.throughput.models.load import load_tensors, load_transformers
from plumbline.throughput.models.manifest import CompressedLayer, Manifest
from plumbline.throughput.models.weights import StoredTypes, sha256_of
from plumbline.throughput.settings import Architecture
from throughput.small_models import SMALL, write_random

CPU = torch.device("cpu")
LAYER = "model.layers.1.mlp.down_proj"


def manifest(folder, **more):
    return Manifest(variant="v", method="none", folder=str(folder), **more)


def logits(model):
    return model(torch.arange(20).view(2, 10)).logits


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_random(tmp_path_factory.mktemp("model"), tokenizer=False)


def test_logits_are_those_of_from_pretrained(model_folder):
    from transformers import AutoModelForCausalLM

    expected = logits(AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32))
    for attention in ("sdpa", "eager"):
        model = load_transformers(manifest(model_folder), torch.float32, CPU, attention)
        assert model.config._attn_implementation == attention
        assert not model.training
        torch.testing.assert_close(logits(model), expected)


def test_full_rank_factors_compute_what_the_dense_layer_does(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "low")
    tensors = load_file(folder / "model.safetensors")
    weight = tensors.pop(f"{LAYER}.weight")
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    tensors[f"{LAYER}.0.weight"] = (values[:, None] * right).float().contiguous()
    tensors[f"{LAYER}.1.weight"] = left.float().contiguous()
    save_file(tensors, folder / "model.safetensors")
    rows, columns = weight.shape
    layer = CompressedLayer(name=LAYER, rows=rows, columns=columns, rank=rows, error=0, discarded=0, norm=1)
    model = load_transformers(manifest(folder, layers=[layer]), torch.float32, CPU, "sdpa")
    expected = logits(load_transformers(manifest(model_folder), torch.float32, CPU, "sdpa"))
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=f"lacks {LAYER}.weight"):  # without the manifest's word
        load_transformers(manifest(folder), torch.float32, CPU, "sdpa")


def test_generation_config_of_the_folder_is_ignored(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "sampling")
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "repetition_penalty": 9.0, "eos_token_id": [1, 2]})
    )
    found = load_transformers(manifest(folder), torch.float32, CPU, "sdpa").generation_config
    assert (found.do_sample, found.repetition_penalty, found.eos_token_id) in [(None, None, None), (False, 1.0, None)]


def test_tensors_are_the_files_in_the_requested_dtype(model_folder):
    stored = load_file(model_folder / "model.safetensors")
    found = load_tensors(manifest(model_folder), torch.bfloat16, CPU)
    assert found.keys() == stored.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, stored[name].bfloat16())


def test_tied_head_and_bfloat16_load(tmp_path):
    folder = write_random(tmp_path / "tied", tokenizer=False, tied_embeddings=True, stored="bfloat16")
    assert "lm_head.weight" not in load_tensors(manifest(folder), torch.float32, CPU)
    assert StoredTypes(folder, "model").of("lm_head.weight") == torch.bfloat16
    model = load_transformers(manifest(folder), torch.float32, CPU, "sdpa")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_sharded_model_equals_the_model_in_one_file(tmp_path, monkeypatch):
    whole = write_random(tmp_path / "whole", tokenizer=False)
    monkeypatch.setattr(random, "FILE_BYTES", 20_000)
    parts = write_random(tmp_path / "parts", tokenizer=False)
    assert len(list(parts.glob("*.safetensors"))) > 3
    assert sha256_of(parts) != sha256_of(whole)
    expected, found = (load_tensors(manifest(folder), torch.float32, CPU) for folder in (whole, parts))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    torch.testing.assert_close(
        *(logits(load_transformers(manifest(f), torch.float32, CPU, "sdpa")) for f in (whole, parts))
    )
    next(parts.glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"does not exist, but model\.safetensors.index.json names it"):
        load_tensors(manifest(parts), torch.float32, CPU)


def test_parameters_are_those_of_transformers(model_folder):
    model = load_transformers(manifest(model_folder), torch.float32, CPU, "sdpa")
    assert random.parameters_of(Architecture(**SMALL)) == sum(weight.numel() for weight in model.parameters())


def test_loading_tensors_imports_no_transformers(model_folder):
    code = (
        "import sys, torch; from plumbline.throughput.models.load import load_tensors;"
        "from plumbline.throughput.models.manifest import Manifest; import plumbline.throughput.measurement.prompts;"
        f"found = Manifest(variant='v', method='none', folder={str(model_folder)!r});"
        "load_tensors(found, torch.float32, torch.device('cpu'));"
        "print('transformers' in sys.modules, 'torch._dynamo' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(plumbline.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def damaged(folder, what):
    weights, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    if what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "no safetensors":
        weights.write_bytes(b"\xff" * 1000)
    elif what == "no weights":
        weights.unlink()
    elif what == "no config":
        (folder / "config.json").unlink()
    elif what == "unknown":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "flatland", "architectures": ["Flat"]}))
    elif what == "encoder only":
        (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    elif what == "wider":
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 50}))
    elif what == "deeper":
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "model.safetensors: is not a complete safetensors file"),
        ("no safetensors", "model.safetensors: is not a complete safetensors file"),
        ("no weights", "has no model.safetensors"),
        ("no config", "has no config.json"),
        ("unknown", "config.json: transformers cannot read it.*flatland"),
        ("encoder only", "has no causal language model of type 't5'"),
        ("wider", "has another shape for .*down_proj.weight .*; set intermediate_size: 48 there"),
        ("deeper", "lacks model.layers.2.input_layernorm.weight, .* and 5 more kinds; set num_hidden_layers: 2 there"),
    ],
)
def test_damaged_folder_is_one_line_that_names_it(model_folder, tmp_path, what, message):
    folder = damaged(shutil.copytree(model_folder, tmp_path / "damaged"), what)
    with pytest.raises(UserError, match=message) as error:
        load_transformers(manifest(folder), torch.float32, CPU, "sdpa")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
