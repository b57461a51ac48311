"""Models that other tools compressed: each layout computes what the tool's own layers compute."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from plumbline.core.files import write_json
from plumbline.core.run.record import Outcome
from plumbline.throughput.engines.interface import Shape, load
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.load import load_transformers
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.models.text import random_windows
from plumbline.throughput.user_variant import UserVariantSpec, user_variant
from throughput.small_models import CODE, VOCABULARY, write_random

CPU = torch.device("cpu")
LAYOUTS = {
    "sequential": ("{}.0", "{}.1"),
    "gsvd": ("{}.vt_linear", "{}.u_linear"),
    "asvd": ("{}.BLinear", "{}.ALinear"),
    "svd-llm": ("{stem}_v_proj", "{stem}_u_proj"),
}


class Scaled(nn.Module):
    """GSVD's layer: scalings of channels by a variance before each factor, biases where the layer had one."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        rows, columns = linear.weight.shape
        draw = torch.Generator().manual_seed(rows + columns)
        self.first = torch.randn(rank, columns, generator=draw) / columns**0.5
        self.second = torch.randn(rows, rank, generator=draw) / rank**0.5
        self.gammas = [torch.rand(size, generator=draw) + 0.5 for size in (columns, rank)]
        self.variances = [torch.rand(size, generator=draw) + 0.1 for size in (columns, rank)]
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        for weight, gamma, variance in zip((self.first, self.second), self.gammas, self.variances, strict=True):
            x = (gamma * x / (variance + 1e-5).sqrt()) @ weight.T
        return x if self.bias is None else x + self.bias


class Unscaled(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.first.T @ self.second.T
        return x if self.bias is None else x + self.bias


def compressed(folder: Path, layout: str, *, biases: bool = False) -> tuple[Path, Any]:
    """A folder in the layout of a tool, and the model with the tool's own layers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    write_random(folder)
    if biases:
        config = AutoConfig.from_pretrained(folder)
        config.attention_bias = config.mlp_bias = True
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(weight)
        model.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    tensors = load_file(folder / "model.safetensors")
    for number, (name, linear) in enumerate([each for each in model.named_modules() if each[0].endswith("_proj")]):
        layer = (Scaled if layout == "gsvd" else Unscaled)(linear, rank=5 + number % 3)
        model.set_submodule(name, layer)
        first, second = (part.format(name, stem=name.removesuffix("_proj")) for part in LAYOUTS[layout])
        del tensors[f"{name}.weight"]
        tensors |= {f"{first}.weight": layer.first, f"{second}.weight": layer.second}
        if (bias := tensors.pop(f"{name}.bias", None)) is not None:
            tensors[f"{second}.bias"] = bias
        if layout == "gsvd":
            for place, (gamma, variance) in enumerate(zip(layer.gammas, layer.variances, strict=True), 1):
                scaling = f"{name}.normalization{place}"
                tensors |= {f"{scaling}.gamma": gamma, f"{scaling}.running_var": variance}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, model


def examined(folder: Path) -> Manifest:
    base = folder.parent / "base"
    base.mkdir()
    write_json(base / "manifest.json", Manifest(variant="base", method="none").model_dump(mode="json"))
    save_file({"evaluation": random_windows(VOCABULARY, 4, 16, 0)}, base / "text.safetensors")
    spec = UserVariantSpec(**CODE, variant="mine", folder=str(folder), ratio=None, fingerprint=None)
    user_variant(spec, base=base / "manifest.json", output=folder.parent / "made" / "manifest.json", device="cpu")
    return read_manifest(folder.parent / "made" / "manifest.json")


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_computes_what_the_tools_own_layers_do(tmp_path: Path, layout: str, biases: bool) -> None:
    folder, own = compressed(tmp_path / "model", layout, biases=biases)
    found = examined(folder)
    assert (found.outcome, len(found.layers), {layer.rank for layer in found.layers}) == (Outcome.OK, 14, {5, 6, 7})
    tokens = random_windows(VOCABULARY, 3, 12, 1)
    expected = own(tokens).logits
    model = load_transformers(found, torch.float32, CPU)
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-5, atol=1e-5)
    whole = sum(layer.rows * layer.columns for layer in found.layers)
    kept = sum(layer.rank * (layer.rows + layer.columns) for layer in found.layers)
    assert found.reached == pytest.approx(kept / whole)
    config = EngineConfig(dtype="float32", attention="sdpa", threads=1, compile=False)
    lean = load("lean")(found, CPU, config, Shape(batch=3, prompt=12, generated=2))
    torch.testing.assert_close(lean.logits(tokens), expected[:, -1], rtol=1e-4, atol=1e-5)


def test_half_a_pair_is_named_as_missing(tmp_path: Path) -> None:
    folder, _ = compressed(tmp_path / "model", "asvd")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.ALinear.weight"]
    save_file(tensors, folder / "model.safetensors")
    found = examined(folder)
    assert found.outcome is Outcome.UNAVAILABLE
    assert "lacks model.layers.0.mlp.up_proj.weight" in (found.message or "")
    assert "up_proj.BLinear.weight" in (found.message or "")


@pytest.mark.parametrize("name", ["model_0.8.pt", "folder"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        write_random(path)
        (path / "model.safetensors").rename(path / "pytorch_model.bin")
    else:
        path.write_bytes(b"\x80\x04")
    found = examined(path)
    assert found.outcome is Outcome.UNAVAILABLE
    assert "is a pickle" in (found.message or "")
    assert "model.save_pretrained(folder)" in (found.message or "")
