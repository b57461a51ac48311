"""Samples images from the zoo's diffusion model."""

import torch
from torch import Tensor

from plumbline.ablation.zoo.diffusion import NULL_PROMPT, Diffusion
from plumbline.ablation.zoo.images import CLASSES, SIDE
from plumbline.ablation.zoo.lora import with_adapters


@torch.no_grad()
def sample(model: Diffusion, prompts: Tensor, images: int, seed: int, steps: int = 16) -> Tensor:
    """(G, images, 8, 8) on the CPU: `images` samples under each of the prompts (G,).

    Integrates the flow from noise to image with the midpoint rule. Group g starts from the same noise in every model.
    Values are not clipped to [−1, 1].
    """
    noise = torch.randn(len(prompts), images, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    x = noise.to(prompts.device)
    length = 1 / steps
    for step in range(steps):
        start = torch.full(x.shape[:2], step * length, device=x.device)
        middle = x + length / 2 * model(x, start, prompts)
        x = x + length * model(middle, start + length / 2, prompts)
    return x.cpu()


def base_samples(base: Diffusion, images: int, seed: int) -> Tensor:
    """(11, images, 8, 8): samples of the base for the prompt of each class in order, then for the null prompt."""
    device = base.prompts.device
    return sample(base, torch.arange(len(CLASSES) + 1, device=device), images, seed)


def adapter_samples(base: Diffusion, factors: dict[str, Tensor], scale: float, images: int, seed: int) -> Tensor:
    """(A, images, 8, 8): samples under the null prompt with each adapter of `factors` (name → (A, …))."""
    device = base.prompts.device
    model = with_adapters(base, {name: factor.to(device) for name, factor in factors.items()}, scale)
    adapters = len(next(iter(factors.values())))
    return sample(model, torch.full((adapters,), NULL_PROMPT, device=device), images, seed)
