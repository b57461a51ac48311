"""Writes a Llama-shaped model with random weights, for shapes that are too large to ship."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from plumbline.core.files import write_json
from plumbline.core.run.progress import Progress
from plumbline.throughput.models.manifest import Shapes
from plumbline.throughput.models.weights import CONFIG, INDEX, SINGLE
from plumbline.throughput.settings import Architecture

INITIAL_STD = 0.02
NORM_EPSILON = 1e-6
FILE_BYTES = 2**30
"""Rough size limit of a weight file, and of the weights in memory at a time."""

Weights = dict[str, tuple[int, ...]]
"""Names and shapes."""


def write_model(folder: Path, architecture: Architecture, seed: int) -> None:
    """Writes config.json and the weights to `folder`: one file, or several with an index beyond FILE_BYTES.

    Matrices are normal with standard deviation 0.02, norms are one. The same seed gives the same bytes.
    """
    write_json(folder / CONFIG, config_of(architecture))
    dtype = getattr(torch, architecture.stored)
    files = list(_files(architecture, dtype.itemsize))
    names = [f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
    names = names if len(files) > 1 else [SINGLE]
    draw = torch.Generator().manual_seed(seed)
    with Progress(len(files), "files") as progress:
        for name, weights in zip(names, files, strict=True):
            tensors = {key: _drawn(shape, draw).to(dtype) for key, shape in weights.items()}
            save_file(tensors, folder / name, metadata={"format": "pt"})
            progress.advance()
    if len(files) > 1:
        total = parameters_of(architecture) * dtype.itemsize
        places = {key: name for name, weights in zip(names, files, strict=True) for key in weights}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def weights_of(architecture: Architecture) -> Weights:
    """Name and shape of every weight of transformers' LlamaForCausalLM; a tied head is left out."""
    width, hidden, vocabulary = architecture.width, architecture.hidden, architecture.vocabulary
    head_size = width // architecture.heads
    key_width = head_size * (architecture.kv_heads or architecture.heads)
    weights: Weights = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(architecture.layers):
        shapes = {
            "input_layernorm": (width,),
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (key_width, width),
            "self_attn.v_proj": (key_width, width),
            "self_attn.o_proj": (width, width),
            "post_attention_layernorm": (width,),
            "mlp.gate_proj": (hidden, width),
            "mlp.up_proj": (hidden, width),
            "mlp.down_proj": (width, hidden),
        }
        weights |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    weights["model.norm.weight"] = (width,)
    if not architecture.tied_embeddings:
        weights["lm_head.weight"] = (vocabulary, width)
    return weights


def shapes_of(architecture: Architecture) -> Shapes:
    """The architecture's shapes, for the manifest."""
    return Shapes(
        kind="llama",
        vocabulary=architecture.vocabulary,
        context=architecture.context,
        width=architecture.width,
        layers=architecture.layers,
        heads=architecture.heads,
        kv_heads=architecture.kv_heads or architecture.heads,
        head_size=architecture.width // architecture.heads,
    )


def parameters_of(architecture: Architecture) -> int:
    """Number of weights."""
    return sum(math.prod(shape) for shape in weights_of(architecture).values())


def config_of(architecture: Architecture) -> dict[str, Any]:
    """The architecture's config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": architecture.vocabulary,
        "hidden_size": architecture.width,
        "intermediate_size": architecture.hidden,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads or architecture.heads,
        "head_dim": architecture.width // architecture.heads,
        "hidden_act": "silu",
        "max_position_embeddings": architecture.context,
        "initializer_range": INITIAL_STD,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": architecture.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": architecture.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": architecture.tied_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "dtype": architecture.stored,
        "use_cache": True,
    }


def _files(architecture: Architecture, itemsize: int) -> Iterator[Weights]:
    """The weights in groups of about FILE_BYTES."""
    group: Weights = {}
    size = 0
    for name, shape in weights_of(architecture).items():
        bytes_ = math.prod(shape) * itemsize
        if group and size + bytes_ > FILE_BYTES:
            yield group
            group, size = {}, 0
        group[name] = shape
        size += bytes_
    yield group


def _drawn(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return torch.ones(shape) if len(shape) == 1 else torch.empty(shape).normal_(std=INITIAL_STD, generator=draw)
