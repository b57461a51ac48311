"""LoRA (Hu et al. 2021, arXiv 2106.09685): many adapters of one base in a single forward pass."""

import copy

import torch
from torch import Tensor, nn

from plumbline.ablation.data.layers import DOWN, UP
from plumbline.ablation.zoo.diffusion import Diffusion
from plumbline.ablation.zoo.settings import DiffusionSettings

ADAPTED = ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v")
"""The modules of a block that carry an adapter."""


class StackedLora(nn.Module):
    """A frozen linear layer shared by A adapters, each of which adds its own α/r · up · down.

    down: (A, r, in); up: (A, out, r). Called with (A, M, in), it returns (A, M, out): row a goes through adapter a.
    """

    def __init__(self, linear: nn.Linear, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        self.linear = linear
        self.down, self.up = nn.Parameter(down), nn.Parameter(up)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        # At the zoo's width, one product with each adapter's W + α/r · up · down makes the whole training a few percent
        # faster than multiplying by W and the two thin factors in turn.
        shared = self.linear.weight.expand(len(self.up), -1, -1)
        return torch.bmm(x, torch.baddbmm(shared, self.up, self.down, alpha=self.scale).mT)


def adapted_modules(blocks: int) -> list[str]:
    """The names of the modules that carry an adapter, in the model's order."""
    return [f"transformer_blocks.{block}.{module}" for block in range(blocks) for module in ADAPTED]


def factor_shapes(settings: DiffusionSettings, rank: int) -> dict[str, tuple[int, int]]:
    """Factor name → shape for one adapter: down (rank, in), up (out, rank)."""
    shapes = {}
    for module in adapted_modules(settings.blocks):
        shapes[module + DOWN] = (rank, settings.width)
        shapes[module + UP] = (settings.width, rank)
    return shapes


def with_adapters(base: Diffusion, factors: dict[str, Tensor], scale: float) -> Diffusion:
    """A model in which group a uses adapter a of `factors` (name → (A, …)), sharing the frozen base's tensors.

    `base` is unchanged. Copies of the factors are the only trainable parameters.
    """
    model = copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})
    for module in adapted_modules(len(base.transformer_blocks)):
        parent, _, child = module.rpartition(".")
        owner, linear = model.get_submodule(parent), model.get_submodule(module)
        assert isinstance(linear, nn.Linear)
        down, up = factors[module + DOWN].clone(), factors[module + UP].clone()
        setattr(owner, child, StackedLora(linear, down, up, scale))
    return model


def factors_of(model: Diffusion) -> dict[str, Tensor]:
    """Factor name → (A, …) of a model made by `with_adapters`, detached."""
    factors = {}
    for name, module in model.named_modules():
        if isinstance(module, StackedLora):
            factors[name + DOWN], factors[name + UP] = module.down.detach(), module.up.detach()
    return factors
