"""The random numbers of one run, drawn in the same order by both ways of training.

First the initial weights, layer by layer; then, in each epoch, the order of the training rows and, before each block
of batches, the dropout masks of that block. Each run has its own generator, so its numbers do not depend on which runs
train beside it.
"""

import math

import torch
from torch import Tensor

from plumbline.ablation.settings import ClassifierSettings

BATCHES_PER_BLOCK = 16  # whose masks are drawn in one call: few calls, and memory does not grow with the rows


def generator_of(seed: int, device: torch.device) -> torch.Generator:
    """The generator of a run."""
    return torch.Generator(device=device).manual_seed(seed)


def initial_weights(
    width: int, classes: int, settings: ClassifierSettings, dtype: torch.dtype, generator: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """The weights (out, in) of every linear layer and the bias (classes,) of the last, uniform in ±1/√in.

    This is how torch.nn.Linear draws them. The hidden layers have no bias: BatchNorm would subtract it.
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

    Each value takes 16 random bits, so the dropped share is exact to 1/65,536. On a CPU this is five times faster than
    torch's bernoulli_, which took a third of an epoch of a small network.
    """
    bits = torch.empty(-(-out.numel() // 4), dtype=torch.int64, device=out.device)
    bits.random_(-(2**63), None, generator=generator)
    out.copy_(bits.view(torch.int16)[: out.numel()])
    out.ge_(round(settings.dropout * 65536) - 32768).mul_(1 / (1 - settings.dropout))


def blocks(rows: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, end) of each block of batches in an epoch of `rows` rows."""
    size = BATCHES_PER_BLOCK * batch_size
    return [(start, min(rows, start + size)) for start in range(0, rows, size)]


def batch_rows(rows: int, start: int, batch_size: int) -> int:
    """Size of the batch that starts at row `start` of `rows`.

    0 if only one row is left: BatchNorm cannot normalise a single row, so the epoch skips it.
    """
    left = min(batch_size, rows - start)
    return left if left > 1 else 0
