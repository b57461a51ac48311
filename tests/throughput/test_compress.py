import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from plumbline.core.run.record import Outcome
from plumbline.throughput.base import BaseSpec, base
from plumbline.throughput.compress import CompressSpec, compress
from plumbline.throughput.compression import calibration
from plumbline.throughput.compression.blocks import blocks_of
from plumbline.throughput.models.load import load_transformers
from plumbline.throughput.models.manifest import read_manifest
from plumbline.throughput.user_variant import UserVariantSpec, user_variant
from throughput.small_models import CODE, SMALL, change_weight, write_corpus, write_random, write_trained

CPU = torch.device("cpu")
RATIOS = (0.8, 0.6, 0.4, 0.2)
TEXT = {"window": 32, "calibration_windows": 128, "evaluation_windows": 256}
LINEARS = [*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))]


def write_base(folder, model, corpus, source="path", chosen=None, text=TEXT):
    spec = BaseSpec(
        **CODE, model={"source": source, "chosen": chosen or {"path": str(model)}}, text=text, seed=0, fingerprint=[]
    )
    base(spec, best=[], corpus=[corpus] if corpus else [], output=folder / "base" / "manifest.json", device="cpu")
    return folder / "base" / "manifest.json"


def made(parent, method, ratio):
    output = parent.parents[1] / f"{method}-{ratio:g}" / "manifest.json"
    compress(
        CompressSpec(**CODE, variant=output.parent.name, method=method, ratio=ratio),
        base=parent,
        output=output,
        device="cpu",
    )
    return read_manifest(output)


def user_supplied(parent, folder, ratio=None):
    output = parent.parents[1] / "own" / "manifest.json"
    user_variant(
        UserVariantSpec(**CODE, variant="mine", folder=str(folder), ratio=ratio, fingerprint=None),
        base=parent,
        output=output,
        device="cpu",
    )
    return read_manifest(output)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpus):
    """Manifest of a base that was trained for three seconds."""
    folder = tmp_path_factory.mktemp("trained")
    return write_base(folder, write_trained(folder / "model", steps=120), corpus)


def test_whitened_beats_plain_at_every_ratio_on_held_out_text(trained):
    untouched = read_manifest(trained).perplexity
    assert untouched < 60  # of 300 tokens: it learned something
    before = untouched
    for ratio in RATIOS:
        whitened, plain = (made(trained, method, ratio).perplexity for method in ("whitened", "plain"))
        assert before < whitened < plain
        before = whitened


def test_layers_are_as_the_manifest_says_and_their_error_is_the_discarded_singular_values(trained):
    parent = read_manifest(trained)
    before = load_transformers(parent, torch.float32, CPU, "sdpa")
    for method in ("plain", "whitened"):
        manifest = made(trained, method, 0.4)
        assert [layer.name for layer in manifest.layers] == [
            f"model.layers.{i}.{name}" for i in range(2) for name in LINEARS
        ]
        tensors = load_file(f"{manifest.folder}/model.safetensors")
        for layer in manifest.layers:
            weight = before.get_submodule(layer.name).weight
            assert (layer.rows, layer.columns) == weight.shape
            assert layer.rank == max(1, int(0.4 * weight.numel() / sum(weight.shape)))
            assert tensors[f"{layer.name}.0.weight"].shape == (layer.rank, layer.columns)
            assert tensors[f"{layer.name}.1.weight"].shape == (layer.rows, layer.rank)
            assert f"{layer.name}.weight" not in tensors
            assert layer.error == pytest.approx(layer.discarded, rel=1e-9)
            assert 0 < layer.error < layer.norm
            if method == "plain":
                product = tensors[f"{layer.name}.1.weight"] @ tensors[f"{layer.name}.0.weight"]
                assert layer.error == pytest.approx(float((weight - product).norm()), rel=1e-5)
        untouched = {name for name in tensors if not any(name.startswith(layer.name) for layer in manifest.layers)}
        for name in untouched:
            assert torch.equal(tensors[name], before.get_parameter(name))
        assert manifest.parameters == sum(tensor.numel() for tensor in tensors.values())


def test_moments_equal_those_of_stored_inputs_and_gradients(trained):
    model = load_transformers(read_manifest(trained), torch.float32, CPU, "sdpa")
    windows = load_file(trained.with_name("text.safetensors"))["calibration"][:6]
    block = blocks_of(model, "here")[0]
    found = calibration.moments(model, block, windows)
    kept = {}

    def keep(module, inputs, output, name):
        output.retain_grad()
        kept[name] = (inputs[0], output)

    model.requires_grad_(True)
    for name, linear in block.items():
        linear.register_forward_hook(lambda *args, name=name: keep(*args, name))
    logits = model(windows).logits[:, :-1]
    torch.nn.functional.nll_loss(
        logits.log_softmax(-1).flatten(0, 1), windows[:, 1:].flatten(), reduction="sum"
    ).backward()
    for name, (x, y) in kept.items():
        x, g = x.detach().flatten(0, 1).double(), y.grad.flatten(0, 1).double()
        assert found[name].tokens == len(x) == 6 * 32
        torch.testing.assert_close(found[name].inputs, x.T @ x, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[name].gradients, g.T @ g, rtol=1e-3, atol=1e-5)


def test_moments_do_not_depend_on_the_batch(trained, monkeypatch):
    model = load_transformers(read_manifest(trained), torch.float32, CPU, "sdpa")
    windows = load_file(trained.with_name("text.safetensors"))["calibration"][:6]
    block = blocks_of(model, "here")[1]
    whole = calibration.moments(model, block, windows)
    monkeypatch.setattr("plumbline.throughput.models.perplexity.LOGITS_BYTES", 1)
    for name, part in calibration.moments(model, block, windows).items():
        torch.testing.assert_close(part.inputs, whole[name].inputs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(part.gradients, whole[name].gradients, rtol=1e-3, atol=1e-5)


def test_memory_for_moments_only_changes_the_number_of_passes(trained, monkeypatch):
    model = load_transformers(read_manifest(trained), torch.float32, CPU, "sdpa")
    blocks = blocks_of(model, "here")
    assert list(calibration.together(blocks)) == [blocks[0] | blocks[1]]
    whole = made(trained, "whitened", 0.6)
    monkeypatch.setattr(calibration, "MOMENTS_BYTES", 1)
    assert list(calibration.together(blocks)) == blocks
    assert made(trained, "whitened", 0.6).perplexity == pytest.approx(whole.perplexity, rel=1e-4)


def test_folder_is_complete_and_names_its_parent(trained):
    manifest, parent = made(trained, "whitened", 0.6), read_manifest(trained)
    names = {path.name for path in (trained.parents[1] / "whitened-0.6").iterdir()}
    assert names == {"config.json", "tokenizer.json", "model.safetensors", "manifest.json"}
    assert (manifest.parent, manifest.weights) == (parent.sha256, "path")
    assert (manifest.calibration, made(trained, "plain", 0.6).calibration) == (parent.calibration, None)
    assert manifest.sha256 not in (None, parent.sha256)


def test_user_folder_that_compress_wrote_gets_the_same_perplexity(trained):
    ours = made(trained, "whitened", 0.6)
    found = user_supplied(trained, ours.folder)
    assert found.perplexity == ours.perplexity
    assert (found.method, found.sha256, found.parent) == ("user", ours.sha256, ours.parent)
    assert found.ratio == found.reached == ours.reached == pytest.approx(0.6, abs=0.05)  # ranks are whole numbers
    assert user_supplied(trained, ours.folder, ratio=0.6).ratio == 0.6


def test_user_folder_that_is_missing_is_an_outcome(trained, tmp_path):
    found = user_supplied(trained, tmp_path / "models" / "gone", ratio=0.8)
    assert found.outcome is Outcome.UNAVAILABLE
    assert str(tmp_path / "models" / "gone") in found.message


def test_user_model_with_other_tokens_or_nan_weights_has_no_perplexity(trained, tmp_path):
    folder = write_random(tmp_path / "other")
    assert user_supplied(trained, folder).perplexity > 100
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    other = user_supplied(trained, folder)
    assert (other.outcome, other.perplexity) == (Outcome.OK, None)
    assert "tokens" in other.message
    change_weight(folder, "model.norm.weight", math.inf)
    assert user_supplied(trained, folder).outcome is Outcome.INVALID_OUTPUT


def test_compressing_a_base_with_a_nan_weight_is_an_outcome(trained, corpus, tmp_path):
    folder = shutil.copytree(read_manifest(trained).folder, tmp_path / "model")
    change_weight(folder, "model.embed_tokens.weight", math.nan)
    found = made(write_base(tmp_path, folder, corpus), "whitened", 0.5)
    assert found.outcome is Outcome.INVALID_OUTPUT
    assert "model.embed_tokens.weight" in found.message


@pytest.mark.parametrize("method", ["plain", "whitened"])
def test_dtypes_and_tied_heads_are_kept(tmp_path, method):
    chosen = {**SMALL, "stored": "bfloat16", "tied_embeddings": True, "kv_heads": 2}
    parent = write_base(tmp_path, None, None, "config", chosen, TEXT | {"calibration_windows": 4})
    found = made(parent, method, 0.5)
    tensors = load_file(f"{found.folder}/model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in tensors
    assert (found.weights, found.perplexity, found.outcome) == ("random", None, Outcome.OK)
    assert found.calibration is None if method == "plain" else found.calibration.source == "random tokens"
    load_transformers(found, torch.float32, CPU, "sdpa")


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_other_architectures_with_biases_compress_too(tmp_path, corpus, kind):
    """GPT-2 keeps its matrices transposed; Qwen has biases on some. At full rank the model computes what it did."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = write_random(tmp_path / "model")
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"max_position_embeddings": 32, "intermediate_size": 48, "num_key_value_heads": 2, "eos_token_id": 0}
    if kind == "gpt2":
        sizes = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "eos_token_id": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    model.save_pretrained(folder)
    parent = write_base(tmp_path, folder, corpus, text=TEXT | {"calibration_windows": 8, "evaluation_windows": 8})
    found = made(parent, "whitened", 0.5)
    assert len(found.layers) == {"gpt2": 8, "qwen2": 14}[kind]
    assert all(layer.error == pytest.approx(layer.discarded, rel=1e-6) for layer in found.layers)
    reloaded = load_transformers(found, torch.float32, CPU, "sdpa")
    if kind == "qwen2":
        bias = reloaded.get_parameter("model.layers.0.self_attn.q_proj.1.bias")
        assert torch.equal(bias, model.get_parameter("model.layers.0.self_attn.q_proj.bias"))
    else:
        assert torch.equal(
            reloaded.get_parameter("transformer.h.1.mlp.c_fc.1.bias"),
            model.get_parameter("transformer.h.1.mlp.c_fc.bias"),
        )
