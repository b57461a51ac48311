"""config.json of a Llama-shaped model: whether it is one, and its sizes. Light to import."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LlamaSizes:
    """What decides how a Llama computes, besides its weights."""

    vocabulary: int
    context: int
    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    """Added to the mean square in a norm."""
    theta: float
    """Base of the rotary embeddings."""


def not_llama(config: Mapping[str, Any]) -> str | None:
    """How the architecture differs from Llama's, as `model_type llama, not gpt2`; None where it does not."""
    rope = _rope(config)
    found = {
        "model_type": (config.get("model_type"), "llama"),
        "hidden_act": (config.get("hidden_act", "silu"), "silu"),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "partial_rotary_factor": (rope.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1, 1),
    }
    return next((f"{name} {known}, not {value}" for name, (value, known) in found.items() if value != known), None)


def rope_theta(config: Mapping[str, Any]) -> float:
    """θ of the rotary embeddings."""
    return float(_rope(config).get("rope_theta", config.get("rope_theta", 10_000.0)))


def llama_sizes(config: Mapping[str, Any]) -> LlamaSizes:
    """The sizes that `config`, a config.json for which `not_llama` is None, states or implies."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    return LlamaSizes(
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        width=width,
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or width // heads,
        epsilon=config.get("rms_norm_eps", 1e-6),
        theta=rope_theta(config),
    )


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary settings; transformers takes the older key first."""
    return config.get("rope_scaling") or config.get("rope_parameters") or {}
