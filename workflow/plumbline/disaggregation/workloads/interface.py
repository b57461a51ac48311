"""What a workload of captured graphs says of itself: its program, its plans, and how fast it could be at best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from plumbline.disaggregation.runtime.graphs.capture import capture
from plumbline.disaggregation.runtime.graphs.graph import Graph
from plumbline.disaggregation.runtime.planning.schedule import Captured, Plan, Policy
from plumbline.disaggregation.settings import Shapes

LOCAL, FULL, REMOTE, NO_SEMANTICS = "local", "full", "remote", "no_semantics"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A module and one call of it."""

    module: nn.Module
    """Takes `inputs` by name and returns `outputs`, a tensor or a tuple."""
    local: nn.Module
    """What is run locally: it computes no more than the wanted outputs need."""
    inputs: Mapping[str, Tensor]
    """Rows first."""
    outputs: tuple[str, ...]
    wanted: tuple[str, ...]
    """Outputs that the caller reads."""
    phase: str
    states: tuple[str, ...] = ()
    modalities: Mapping[str, str]
    batches: tuple[int, ...]
    """Numbers of rows that it is captured for, the whole batch first."""

    @property
    def rows(self) -> int:
        """Of a call of the whole."""
        return self.batches[0]

    def capture(self, model: str) -> dict[int, Graph]:
        """A graph for each of `batches`."""
        found = {}
        for rows in self.batches:
            inputs = {name: one[:rows] for name, one in self.inputs.items()}
            found[rows], _ = capture(
                self.module,
                inputs,
                self.outputs,
                model=model,
                phase=self.phase,
                modalities=self.modalities,
                states=self.states,
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Plans:
    """How a workload is measured: its variants, and what tells how fast it could be."""

    variants: Mapping[str, Plan]
    probes: Mapping[str, Plan]
    """Parts that run alone, for the bound."""
    serial: str
    """The variant in which one worker does all the work that `full` spreads."""
    undivided: str | None = None
    """The variant in which one worker takes the whole batch in one call, where `serial` takes it in parts."""
    bound: float | None
    """How many times as fast `full` can be as `serial` with two perfect workers; None: Σ ÷ max of the probes."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload: a module of this folder."""

    name: str
    unit: str
    program: Callable[[Shapes, int], Program]
    """From the shapes and the seed."""
    plans: Callable[[Captured, Shapes, Mapping[str, float]], Plans]
    """From the captured program, the shapes, and the seconds of each node of a micro-batch."""


def leave_one_out(full: Policy, names: tuple[str, ...], plan: Callable[[Policy], Plan]) -> dict[str, Plan]:
    """`full`, and the variant `no_NAME` for each switch."""
    return {FULL: plan(full)} | {f"no_{name}": plan(full.without(name)) for name in names}
