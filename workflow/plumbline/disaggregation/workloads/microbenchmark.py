"""Workload `microbenchmark`: single operations of five families in several sizes, each moved in several ways.

From their times the cost model is calibrated, and judged: a family that it was not calibrated with is predicted.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from plumbline.disaggregation.runtime.schedule import Captured, Plan, Policy, here, schedule
from plumbline.disaggregation.settings import CAPTURE, MICRO, SPLIT, MicroSettings
from plumbline.disaggregation.workloads.interface import FULL, NO_SEMANTICS, REMOTE, Program

VALUE, RESULT, MEAN = "value", "result", "mean"
HEADS, HEAD_WIDTH = 4, 32


class Attention(nn.Module):
    """Scaled dot-product attention of the input to itself: no weights."""

    def forward(self, value: Tensor) -> Tensor:
        """value: (rows, heads, tokens, width)."""
        return nn.functional.scaled_dot_product_attention(value, value, value)


class Product(nn.Module):
    """The product with a square matrix that keeps the size of values."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, size) / math.sqrt(size))

    def forward(self, value: Tensor) -> Tensor:
        """value: (rows, size, size)."""
        return torch.matmul(value, self.weight)


class Repeated(nn.Module):
    """An operation several times in a row, and the mean of what comes out, a number a row."""

    def __init__(self, operation: nn.Module, times: int) -> None:
        super().__init__()
        self.operation = operation
        self.times = times

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """value: as the operation takes it, rows first."""
        for _ in range(self.times):
            value = self.operation(value)
        return value, value.flatten(1).mean(1)


Family = Callable[[int], tuple[nn.Module, tuple[int, ...]]]
"""From a size: an operation whose result has the shape of its input, and that shape without rows."""
FAMILIES: Mapping[str, Family] = {
    "matmul": lambda size: (Product(size), (size, size)),
    "linear": lambda size: (nn.Linear(2 * size, 2 * size), (2 * size,)),
    "conv": lambda size: (nn.Conv2d(size // 4, size // 4, 3, padding=1), (size // 4, size // 8, size // 8)),
    "attention": lambda size: (Attention(), (HEADS, size, HEAD_WIDTH)),
    "norm": lambda size: (nn.LayerNorm(size), (size, size)),
}


def programs(settings: MicroSettings, seed: int) -> dict[str, Program]:
    """By `microbenchmark/FAMILY/SIZExTIMES`: each family at each size, once, and at the last size repeated."""
    cases = [*((size, 1) for size in settings.sizes), (settings.sizes[-1], settings.repeats)]
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for family, build in FAMILIES.items():
        for size, times in cases:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                operation, shape = build(size)
            module = Repeated(operation, times).eval()
            found[f"{MICRO}/{family}/{size}x{times}"] = Program(
                module=module,
                local=module,
                inputs={VALUE: torch.randn((settings.rows, *shape), generator=draw)},
                outputs=(RESULT, MEAN),
                wanted=(MEAN,),
                phase="forward",
                modalities={VALUE: family},
                batches=(settings.rows, settings.rows // 2),
            )
    return found


def plans(captured: Captured) -> dict[str, Plan]:
    """Where a program can run, and how much moves: the input and its mean; the result as well; weights, too."""
    full = Policy.of("weights_resident", "wanted_only")
    return {
        CAPTURE: here(captured),
        FULL: schedule(captured, full),
        SPLIT: schedule(captured, Policy.of("weights_resident", "wanted_only", "split")),
        REMOTE: schedule(captured, Policy.of("weights_resident")),
        NO_SEMANTICS: schedule(captured, Policy.of()),
    }
