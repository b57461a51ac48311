"""Random adapters, and how each trainer writes them: for the tests of the readers."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SELF = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CROSS = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Module → down (r, in), up (out, r)."""
Tensors = dict[str, np.ndarray]


def random_pairs(seed: int = 0, rank: int = 2, modules: tuple[str, ...] = (SELF, CROSS)) -> Pairs:
    random = np.random.default_rng(seed)
    return {
        module: (
            random.standard_normal((rank, 5 + index)).astype(np.float32),
            random.standard_normal((4 + index, rank)).astype(np.float32),
        )
        for index, module in enumerate(modules)
    }


def changes(pairs: Pairs, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Module → ΔW, by plain loops over the rank in float64."""
    found = {}
    for module, (down, up) in pairs.items():
        found[module] = sum(
            scale * np.outer(up[:, one].astype(np.float64), down[one].astype(np.float64)) for one in range(len(down))
        )
    return found


def dotted(prefix: str, down: str, up: str) -> Callable[[Pairs], Tensors]:
    def write(pairs: Pairs) -> Tensors:
        return {
            f"{prefix}{m}.{s}.weight": v for m, pair in pairs.items() for s, v in zip((down, up), pair, strict=True)
        }

    return write


def underscored(prefix: str) -> Callable[[Pairs], Tensors]:
    def write(pairs: Pairs) -> Tensors:
        return dotted("", "lora_down", "lora_up")({prefix + m.replace(".", "_"): pair for m, pair in pairs.items()})

    return write


def processors(pairs: Pairs) -> Tensors:
    renamed = {m.replace(".to_", ".processor.to_") + "_lora": pair for m, pair in pairs.items()}
    return dotted("unet.", "down", "up")(renamed)


NAMINGS: dict[str, Callable[[Pairs], Tensors]] = {
    "PEFT": dotted("base_model.model.", "lora_A", "lora_B"),
    "PEFT with the adapter's name": dotted("base_model.model.unet.", "lora_A.default", "lora_B.default"),
    "diffusers": dotted("unet.", "lora.down", "lora.up"),
    "diffusers, PEFT's sides": dotted("transformer.", "lora_A", "lora_B"),
    "diffusers, older": dotted("unet.", "lora_linear_layer.down", "lora_linear_layer.up"),
    "attention processors": processors,
    "bare": dotted("", "lora_A", "lora_B"),
    "ComfyUI": dotted("diffusion_model.", "lora_down", "lora_up"),
    "original checkpoint": dotted("model.diffusion_model.", "lora_down", "lora_up"),
    "Cascade's prior": dotted("prior.", "lora_A", "lora_B"),
    "kohya": underscored("lora_unet_"),
    "OneTrainer": underscored("lora_transformer_"),
    "OneTrainer, Cascade": underscored("lora_prior_unet_"),
    "LyCORIS": underscored("lycoris_"),
}


@dataclass(frozen=True)
class Saved:
    """An adapter as it lies on the disk: its tensors, the metadata, and files by their names."""

    tensors: Tensors
    metadata: Mapping[str, str]
    files: Mapping[str, str]

    def save(self, file: Path) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: np.ascontiguousarray(v) for k, v in self.tensors.items()}, file, metadata=dict(self.metadata))
        for name, text in self.files.items():
            (file.parent / name.format(stem=file.stem)).write_text(text)
        return file


def in_tensors(tensors: Tensors, alpha: float) -> Saved:
    """α in a tensor beside each pair, as kohya writes it."""
    end = re.compile(r"((\.lora|\.lora_linear_layer)?\.down|\.lora_down|\.lora_A)(\.default)?\.weight$")
    stems = {end.sub("", key) for key in tensors if end.search(key)}
    return Saved({**tensors, **{f"{stem}.alpha": np.asarray(alpha, np.float64) for stem in stems}}, {}, {})


def in_metadata(key: str, wrap: str = "") -> Callable[[Tensors, float], Saved]:
    def write(tensors: Tensors, alpha: float) -> Saved:
        values: dict[str, Any] = {key: alpha}
        metadata = {wrap: json.dumps(values)} if wrap else {key: str(alpha)}
        return Saved(tensors, {"format": "pt", **metadata}, {})

    return write


def in_file(name: str, key: str = "lora_alpha") -> Callable[[Tensors, float], Saved]:
    def write(tensors: Tensors, alpha: float) -> Saved:
        return Saved(tensors, {}, {name: json.dumps({"peft_type": "LORA", key: alpha})})

    return write


PLACES: dict[str, Callable[[Tensors, float], Saved]] = {
    "tensors": in_tensors,
    **{key: in_metadata(key) for key in ("lora_alpha", "network_alpha", "alpha", "ss_network_alpha", "linear_alpha")},
    "transformer.lora_alpha": in_metadata("transformer.lora_alpha"),
    "unet.lora_alpha in lora_adapter_metadata": in_metadata("unet.lora_alpha", "lora_adapter_metadata"),
    "lora_alpha in adapter_config": in_metadata("lora_alpha", "adapter_config"),
    "network_alpha in ss_network_args": in_metadata("network_alpha", "ss_network_args"),
    "adapter_config.json": in_file("adapter_config.json"),
    "<file>.json": in_file("{stem}.json"),
    "<file>_config.json": in_file("{stem}_config.json", "network_alpha"),
    "../adapter_config.json": in_file("../adapter_config.json"),
}
