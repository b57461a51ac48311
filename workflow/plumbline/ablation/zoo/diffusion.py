"""The zoo's diffusion model: a flow-matching transformer on 8 × 8 images, with blocks like Stable Diffusion's.

Images come as (groups, images, 8, 8). The images of a group share their prompt and, with adapters installed, their
weights. Pretraining has groups of one image; adapter training has one group per adapter.

Flow matching (Lipman et al. 2023, arXiv 2210.02747, with the straight paths of arXiv 2209.03003): on the path
x_t = (1 − t)·noise + t·image the model predicts the velocity image − noise.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from plumbline.ablation.zoo.images import CLASSES, SIDE
from plumbline.ablation.zoo.settings import DiffusionSettings
from plumbline.core.errors import UserError

PATCH = 2
TOKENS = (SIDE // PATCH) ** 2
NULL_PROMPT = len(CLASSES)
"""The index of the prompt without a class."""

_TIME_FREQUENCIES = 8


class Attention(nn.Module):
    """Multi-head attention from x to context."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, sequences: int) -> Tensor:
        """x: (G, M, d), context: (G, C, d), each made of `sequences` concatenated sequences, which are independent."""
        q, k, v = (
            y.unflatten(1, (sequences, -1)).unflatten(-1, (self.heads, -1)).flatten(0, 1).transpose(1, 2)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(mixed.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """Self-attention within an image, cross-attention to the prompt, MLP; each a pre-norm residual branch."""

    def __init__(self, settings: DiffusionSettings) -> None:
        super().__init__()
        width = settings.width
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, settings.heads)
        self.attn2 = Attention(width, settings.heads)
        self.expand = nn.Linear(width, settings.mlp_ratio * width)
        self.contract = nn.Linear(settings.mlp_ratio * width, width)

    def forward(self, x: Tensor, prompt: Tensor, images: int) -> Tensor:
        """x: (G, images·TOKENS, d), prompt: (G, P, d). Returns the shape of x."""
        y = self.norm1(x)
        x = x + self.attn1(y, y, images)
        x = x + self.attn2(self.norm2(x), prompt, 1)
        return x + self.contract(F.silu(self.expand(self.norm3(x))))


class Diffusion(nn.Module):
    """Predicts the velocity of the flow at (images, times), given a prompt."""

    def __init__(self, settings: DiffusionSettings) -> None:
        super().__init__()
        width = settings.width
        self.patches = nn.Linear(PATCH * PATCH, width)
        self.positions = nn.Parameter(torch.randn(TOKENS, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(2 * _TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.prompts = nn.Parameter(torch.randn(len(CLASSES) + 1, settings.prompt_tokens, width))
        self.transformer_blocks = nn.ModuleList(Block(settings) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(width)
        self.velocity = nn.Linear(width, PATCH * PATCH)
        nn.init.zeros_(self.velocity.weight)

    def forward(self, images: Tensor, times: Tensor, prompts: Tensor) -> Tensor:
        """images: (G, N, 8, 8), times: (G, N) in [0, 1], prompts: (G,) class or NULL_PROMPT. Returns (G, N, 8, 8)."""
        groups, count = times.shape
        x = self.patches(to_patches(images)) + self.positions + self.time(time_features(times))[:, :, None]
        x, prompt = x.flatten(1, 2), self.prompts[prompts]
        for block in self.transformer_blocks:
            x = block(x, prompt, count)
        return from_patches(self.velocity(self.norm(x)).view(groups, count, TOKENS, -1))


def flow_losses(model: nn.Module, images: Tensor, noise: Tensor, times: Tensor, prompts: Tensor) -> Tensor:
    """(G,): the mean squared error of the predicted velocity over each group's images (G, N, 8, 8)."""
    t = times[..., None, None]
    predicted = model(torch.lerp(noise, images, t), times, prompts)
    return (predicted - (images - noise)).square().mean((1, 2, 3))


def to_patches(images: Tensor) -> Tensor:
    """(..., 8, 8) → (..., 16, 4): the 2 × 2 patches in reading order."""
    side = SIDE // PATCH
    split = images.unflatten(-2, (side, PATCH)).unflatten(-1, (side, PATCH))
    return split.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)


def from_patches(patches: Tensor) -> Tensor:
    """The inverse of `to_patches`."""
    side = SIDE // PATCH
    split = patches.unflatten(-2, (side, side)).unflatten(-1, (PATCH, PATCH))
    return split.transpose(-3, -2).flatten(-2, -1).flatten(-3, -2)


def time_features(times: Tensor) -> Tensor:
    """(...,) → (..., 16): cosines and sines of the time at frequencies from half a turn to sixteen turns."""
    exponents = torch.linspace(0, 5, _TIME_FREQUENCIES, device=times.device)
    angles = times[..., None] * (math.pi * 2**exponents)
    return torch.cat([angles.cos(), angles.sin()], -1)


def load_base(path: Path, settings: DiffusionSettings, device: torch.device | str = "cpu") -> Diffusion:
    """The frozen base with the weights in the safetensors file `path`.

    Raises UserError when the file is missing, unreadable, or belongs to a model of another size.
    """
    model = Diffusion(settings)
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist; run stage `ablation.pretrain` first") from None
    except SafetensorError as error:
        raise UserError(f"{path}: is not a safetensors file ({error}); delete it to have it rebuilt") from None
    except RuntimeError as error:
        mismatch = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not of the size in the config ({mismatch}); delete it to have it rebuilt") from None
    return model.to(device).requires_grad_(False).eval()
