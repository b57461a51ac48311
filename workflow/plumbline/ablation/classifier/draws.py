"""The random numbers of one run, in the order in which both ways of training draw them.

First the initial weights, layer by layer; then for each epoch the order of the training rows; then, before each block
of batches, the dropout masks of that block. Each run has a generator of its own, so its numbers do not depend on
which runs train beside it.
"""

import math

import torch
from torch import Tensor

from plumbline.ablation.settings import ClassifierSettings

BATCHES_PER_BLOCK = 16  # masks drawn in one call: fewer calls, and memory that does not grow with the rows


def generator_of(seed: int, device: torch.device) -> torch.Generator:
    """The generator of the run with this seed."""
    return torch.Generator(device=device).manual_seed(seed)


def initial_weights(
    width: int, classes: int, settings: ClassifierSettings, dtype: torch.dtype, generator: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """The weights (out, in) of every linear layer and the bias (classes,) of the last, uniform in ±1/√in.

    As torch.nn.Linear draws them. The hidden layers have no bias: the BatchNorm behind them would subtract it.
    """

    def uniform(*shape: int, inputs: int) -> Tensor:
        bound = 1 / math.sqrt(inputs)
        empty = torch.empty(*shape, dtype=dtype, device=generator.device)
        return empty.uniform_(-bound, bound, generator=generator)

    inputs = [width] + [settings.hidden] * settings.layers
    outputs = [settings.hidden] * settings.layers + [classes]
    weights = [uniform(m, n, inputs=n) for m, n in zip(outputs, inputs, strict=True)]
    return weights, uniform(classes, inputs=settings.hidden)


def row_order(rows: int, generator: torch.Generator) -> Tensor:
    """A random order of `rows` training rows."""
    return torch.randperm(rows, generator=generator, device=generator.device)


def draw_masks(out: Tensor, settings: ClassifierSettings, generator: torch.Generator) -> None:
    """Fills the flat `out` with dropout masks: 0, or 1 / (1 − dropout).

    Each value takes 16 random bits (so the share dropped is exact to 1/65,536): five times faster on a CPU than
    torch's bernoulli_, which took a third of an epoch of a small network.
    """
    words = torch.empty(-(-out.numel() // 4), dtype=torch.int64, device=out.device)
    words.random_(-(2**63), None, generator=generator)
    out.copy_(words.view(torch.int16)[: out.numel()])
    out.ge_(round(settings.dropout * 65536) - 32768).mul_(1 / (1 - settings.dropout))


def blocks(rows: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, end) of each block of batches in an epoch of `rows` rows."""
    size = BATCHES_PER_BLOCK * batch_size
    return [(start, min(rows, start + size)) for start in range(0, rows, size)]


def batch_rows(rows: int, start: int, batch_size: int) -> int:
    """How many of `rows` rows the batch from `start` on takes.

    0 where one row alone is left: BatchNorm cannot normalise it, so that epoch goes without it.
    """
    left = min(batch_size, rows - start)
    return left if left > 1 else 0
