"""CTranslate2's format: model.bin, config.json and vocabulary.json."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.throughput.models.llama_config import LlamaSizes


def write(folder: Path, sizes: LlamaSizes, tensors: dict[str, Tensor], dtype: str) -> None:
    """Writes a Llama to `folder`, its weights as `dtype`. tensors: by transformers' names; a tied head is left out.

    The package's own converter needs a tokenizer, and loads the model with transformers. The tokens are called by their
    ids here: "0", "1", ...
    """
    from ctranslate2.specs import common_spec, transformer_spec

    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        sizes.layers,
        sizes.heads,
        num_heads_kv=None if sizes.kv_heads == sizes.heads else sizes.kv_heads,
        head_dim=sizes.head_size,
        activation=common_spec.Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,  # all dimensions
        rotary_interleave=False,
        rotary_base=sizes.theta,
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = tensors["model.embed_tokens.weight"]
    decoder.layer_norm.gamma = tensors["model.norm.weight"]
    decoder.projection.weight = tensors.get("lm_head.weight", decoder.embeddings.weight)
    for number, layer in enumerate(decoder.layer):
        prefix = f"model.layers.{number}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        layer.self_attention.layer_norm.gamma = tensors[f"{prefix}.input_layernorm.weight"]
        layer.ffn.layer_norm.gamma = tensors[f"{prefix}.post_attention_layernorm.weight"]
        _fill(layer.self_attention.linear[0], tensors, *(f"{attention}.{name}_proj" for name in "qkv"))
        _fill(layer.self_attention.linear[1], tensors, f"{attention}.o_proj")
        _fill(layer.ffn.linear_0, tensors, f"{mlp}.gate_proj")
        _fill(layer.ffn.linear_0_noact, tensors, f"{mlp}.up_proj")
        _fill(layer.ffn.linear_1, tensors, f"{mlp}.down_proj")
    spec.register_vocabulary([str(token) for token in range(sizes.vocabulary)])
    spec.config.layer_norm_epsilon = sizes.epsilon
    spec.config.unk_token = spec.config.bos_token = spec.config.eos_token = "0"  # must name a token; none is used
    spec.validate()
    spec.optimize(quantization=dtype)
    spec.save(str(folder))


def _fill(linear: Any, tensors: dict[str, Tensor], *names: str) -> None:
    """Sets a linear layer's weight and bias to those of the layers `names`, one below the other."""
    linear.weight = torch.cat([tensors[f"{name}.weight"] for name in names])
    if f"{names[0]}.bias" in tensors:
        linear.bias = torch.cat([tensors[f"{name}.bias"] for name in names])
