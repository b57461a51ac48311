"""Workload `microbenchmark`: single operations of five families in several sizes, each moved in several ways.

From their times the cost model is calibrated, and judged: a family that it was not calibrated with is predicted.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from plumbline.disaggregation.runtime.graphs.capture import capture
from plumbline.disaggregation.runtime.graphs.graph import Graph, part
from plumbline.disaggregation.runtime.planning.schedule import Captured, Plan, Policy, here, schedule
from plumbline.disaggregation.settings import CAPTURE, MICRO, SPLIT, MicroSettings
from plumbline.disaggregation.workloads.interface import FULL, NO_SEMANTICS, REMOTE, Program

RESULT, MEAN = "result", "mean"
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

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The one input: as the operation takes it, rows first."""
        (value,) = inputs.values()
        for _ in range(self.times):
            value = self.operation(value)
        return value, value.flatten(1).mean(1)


class All(nn.Module):
    """Every program at once, each with an input of its own name: exporting one costs as much as exporting all."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.programs = nn.ModuleDict(modules)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """The results and means, program by program."""
        made = [self.programs[name](**{name: value}) for name, value in inputs.items()]
        return tuple(one for both in made for one in both)


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
    """By `FAMILY_SIZExTIMES`: each family at each size, once and repeated. Each has one input."""
    cases = [(size, times) for size in settings.sizes for times in (1, settings.repeats)]
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for family, build in FAMILIES.items():
        for size, times in cases:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                operation, shape = build(size)
            module, name = Repeated(operation, times).eval(), f"{family}_{size}x{times}"
            found[name] = Program(
                module=module,
                local=module,
                inputs={name: torch.randn((settings.rows, *shape), generator=draw)},
                outputs=(RESULT, MEAN),
                wanted=(MEAN,),
                phase="forward",
                modalities={name: family},
                batches=(settings.rows, settings.rows // 2),
            )
    return found


def graphs(programs: Mapping[str, Program]) -> dict[str, dict[int, Graph]]:
    """The graphs of each program by number of rows."""
    found: dict[str, dict[int, Graph]] = {name: {} for name in programs}
    module = All({name: program.module for name, program in programs.items()})
    first = next(iter(programs.values()))
    for rows in first.batches:
        inputs = {key: value[:rows] for program in programs.values() for key, value in program.inputs.items()}
        outputs = [f"{name}/{output}" for name in programs for output in (RESULT, MEAN)]
        whole, _ = capture(module, inputs, outputs, model=MICRO, phase=first.phase)
        for name, own in found.items():
            graph = part(whole, {output: whole.outputs[f"{name}/{output}"] for output in (RESULT, MEAN)})
            own[rows] = graph.changed(model=f"{MICRO}/{name}")
    return found


def weights(programs: Mapping[str, Program]) -> dict[str, Tensor]:
    """Of all programs, as their graphs name them."""
    return dict(All({name: program.module for name, program in programs.items()}).state_dict())


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
