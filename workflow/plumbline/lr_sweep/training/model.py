"""The language model: a decoder-only transformer with Llama's architecture, in plain torch.

RMSNorm before each block, rotary positions, SwiGLU, no biases. Parameter names match transformers'
LlamaForCausalLM, so a trained model loads there; training itself does not need transformers.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.lr_sweep.settings import ModelSettings

NORM_EPSILON = 1e-6
INITIAL_STD = 0.02

FLOPS_FORMULA = "6 N + 12 L d T: N matmul weights without the embedding, L layers, d width, T context"
"""FLOPs per token of forward and backward (Chowdhery et al. 2022, "PaLM", appendix B); the causal mask is ignored."""


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last axis (Zhang and Sennrich 2019, "Root Mean Square Layer Normalization")."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, NORM_EPSILON)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(settings.width, settings.width, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # one product and one rotation instead of three and two
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        heads = F.linear(x, weight).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)  # (B, 3 heads, T, head size)
        q, k = rotate(heads[:, : 2 * self.heads], cos, sin).chunk(2, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, heads[:, 2 * self.heads :], is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(-2))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(settings.width, settings.hidden, bias=False)
        self.up_proj = nn.Linear(settings.width, settings.hidden, bias=False)
        self.down_proj = nn.Linear(settings.hidden, settings.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then SwiGLU, each with a norm before it and a residual connection around it."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(settings.width)
        self.self_attn = Attention(settings)
        self.post_attention_layernorm = RMSNorm(settings.width)
        self.mlp = SwiGLU(settings)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Embedding, layers and final norm: tokens (B, T) → (B, T, width)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(settings.vocabulary, settings.width)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.norm = RMSNorm(settings.width)
        self.cos: Tensor
        self.sin: Tensor
        cos, sin = rotations(settings)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        length = tokens.shape[1]
        cos, sin = self.cos[:length].to(x.dtype), self.sin[:length].to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Transformer(nn.Module):
    """The whole model, with initial weights drawn from torch's global generator.

    Weights are normal with standard deviation 0.02, divided by sqrt(2 layers) where they write into the residual
    stream (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.model = Trunk(settings)
        self.lm_head = nn.Linear(settings.width, settings.vocabulary, bias=False)
        if settings.tied_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                shrink = math.sqrt(2 * settings.layers) if into_residual else 1.0
                nn.init.normal_(weight, std=INITIAL_STD / shrink)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, reduction: str = "mean") -> Tensor:
        """Logits (B, T, vocabulary) of int64 tokens (B, T); with targets (B, T), the cross-entropy in nats instead."""
        logits: Tensor = self.lm_head(self.model(tokens))
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)


def rotations(settings: ModelSettings) -> tuple[Tensor, Tensor]:
    """cos and ± sin (context, head size) of the rotary angles (Su et al. 2021, "RoFormer", section 3.4.2).

    The sine of the first half of the features is negative, as `rotate` needs it.
    """
    size = settings.width // settings.heads
    frequencies = 1.0 / settings.rope_theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(settings.context, dtype=torch.float32), frequencies)
    return angles.cos().repeat(1, 2), torch.cat((-angles.sin(), angles.sin()), dim=1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (..., T, head size) rotated by the angles of its positions; the two halves of the features form the pairs."""
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((second, first), dim=-1), sin)


def parameter_count(settings: ModelSettings) -> int:
    """Number of weights."""
    head = 0 if settings.tied_embeddings else settings.vocabulary * settings.width
    norms = (2 * settings.layers + 1) * settings.width
    return _layer_weights(settings) + norms + settings.vocabulary * settings.width + head


def flops_per_token(settings: ModelSettings) -> int:
    """Floating-point operations of training on one token, by FLOPS_FORMULA."""
    multiplied = _layer_weights(settings) + settings.vocabulary * settings.width
    return 6 * multiplied + 12 * settings.layers * settings.width * settings.context


def transformers_config(settings: ModelSettings, end_of_text: int) -> dict[str, Any]:
    """config.json of this model as a LlamaForCausalLM, with its weights in float32."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": settings.vocabulary,
        "hidden_size": settings.width,
        "intermediate_size": settings.hidden,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.heads,
        "head_dim": settings.width // settings.heads,
        "hidden_act": "silu",
        "max_position_embeddings": settings.context,
        "initializer_range": INITIAL_STD,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": settings.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": settings.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": settings.tied_embeddings,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": None,  # with one, transformers would not train its embedding
        "dtype": "float32",
        "use_cache": True,
    }


def _layer_weights(settings: ModelSettings) -> int:
    return settings.layers * (4 * settings.width**2 + 3 * settings.width * settings.hidden)
