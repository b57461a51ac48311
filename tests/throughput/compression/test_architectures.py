"""Compression of other architectures: what each keeps, reaches and notes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from plumbline.core.run.record import Outcome
from plumbline.throughput.base import BaseSpec, base
from plumbline.throughput.compress import CompressSpec, compress
from plumbline.throughput.compression import calibration
from plumbline.throughput.compression.blocks import blocks_of
from plumbline.throughput.models.load import load_transformers
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.models.text import random_windows
from throughput.small_models import CODE, write_corpus, write_tokenizer

CPU = torch.device("cpu")
ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
SIZES = ENDS | {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "max_position_embeddings": 64}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}


def saved(folder: Path, kind: str, **sizes: Any) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def made(folder: Path, method: str, ratio: float = 0.5) -> tuple[Manifest, Manifest]:
    """The base and its compression."""
    text = {"window": 16, "calibration_windows": 6, "evaluation_windows": 6}
    model = {"source": "path", "chosen": {"path": str(folder)}}
    first, second = (folder.parent / "models" / name / "manifest.json" for name in ("base", method))
    spec = BaseSpec(**CODE, model=model, text=text, seed=0, fingerprint=[])
    base(spec, best=[], corpus=[write_corpus(folder.parent / "corpus")], output=first, device="cpu")
    compress(CompressSpec(**CODE, variant=method, method=method, ratio=ratio), base=first, output=second, device="cpu")
    return read_manifest(first), read_manifest(second)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("falcon", {"multi_query": True}),  # adds to the output of a linear layer in place
        ("gpt_neo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8}),
        ("bloom", {"n_layer": 2, "n_head": 4}),
        ("gemma2", {"head_dim": 8, "num_key_value_heads": 2, "sliding_window": 8, "query_pre_attn_scalar": 8}),
        ("phimoe", {"num_local_experts": 4, "num_key_value_heads": 2}),  # the router's gradient is cut
    ],
)
@pytest.mark.parametrize("method", ["plain", "whitened"])
def test_architectures_without_a_fused_kernel_or_with_their_own_gradients_are_scored_and_compressed(
    tmp_path: Path, kind: str, sizes: dict[str, Any], method: str
) -> None:
    parent, found = made(saved(tmp_path / "model", kind, **{**SIZES, **sizes}), method)
    assert (parent.outcome, found.outcome) == (Outcome.OK, Outcome.OK)
    assert parent.perplexity is not None
    assert found.perplexity is not None
    assert found.layers
    load_transformers(found, torch.float32, CPU)


def test_layers_beyond_the_reach_of_gradients_are_noted(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "qwen2", **SIZES, num_key_value_heads=4)
    model = load_transformers(made(folder, "plain")[0], torch.float32, CPU)
    layer = model.get_submodule("model.layers.0.mlp.gate_proj")
    layer.register_forward_hook(lambda _, __, output: output.detach())
    found = calibration.moments(model, blocks_of(model, "here")[0], random_windows(300, 2, 8, 0))
    assert calibration.unweighted(found) == [
        "no gradient reaches model.layers.0.mlp.gate_proj, so their errors are weighted equally there"
    ]


def test_experts_that_stay_whole_are_said_and_counted_in_the_share_reached(tmp_path: Path) -> None:
    parent, found = made(
        saved(tmp_path / "model", "qwen3_moe", **SIZES, **EXPERTS, num_key_value_heads=2), "plain", 0.2
    )
    before, after = (load_transformers(each, torch.float32, CPU).model.layers for each in (parent, found))
    whole, left = (sum(w.numel() for w in part.parameters() if w.dim() > 1) for part in (before, after))
    assert found.reached == pytest.approx(left / whole)
    assert found.reached > 0.6
    assert any("SVD left" in note and "experts.gate_up_proj" in note for note in found.notes)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_the_stored_dtypes_are_kept_whatever_the_files_call_the_tensors(tmp_path: Path, prefix: str) -> None:
    """As in GPT-2's first files: without the prefix, and with masks among the weights."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    folder = saved(tmp_path / "model", "gpt2", **ENDS, vocab_size=300, **sizes)
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        dtype = torch.float32 if "ln_" in name else torch.float16
        tensors[prefix + name.removeprefix("transformer.")] = tensor.to(dtype)
    for layer in range(2):
        tensors[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool).tril()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _, found = made(folder, "plain")
    for name, tensor in load_file(f"{found.folder}/model.safetensors").items():
        assert tensor.dtype == (torch.float32 if "ln_" in name else torch.float16), name


def test_a_model_that_cannot_be_differentiated_leaves_the_plain_variant(tmp_path: Path, monkeypatch: Any) -> None:
    folder = saved(tmp_path / "model", "qwen2", **SIZES, num_key_value_heads=4)

    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError("derivative for this operation is not implemented")

    monkeypatch.setattr(torch.Tensor, "backward", refuses)
    _, whitened = made(folder, "whitened")
    assert whitened.outcome is Outcome.UNAVAILABLE
    assert "gradients cannot be computed" in (whitened.message or "")
    assert made(folder, "plain")[1].outcome is Outcome.OK
