"""A workload's programs in the process that owns them: what other systems' baselines run of captured graphs."""

import torch
from torch import Tensor

from plumbline.disaggregation.blocks.cores import OWNER, bound_to
from plumbline.disaggregation.settings import Shapes
from plumbline.disaggregation.workloads import programs
from plumbline.disaggregation.workloads.outputs import computed


class Programs:
    """Modules that compute what local computes, uncaptured. What a program keeps stays here until its next call."""

    def __init__(self, workload: str, shapes: Shapes, seed: int, device: str) -> None:
        """Builds all programs of the workload, on the core of the first worker."""
        bound_to(OWNER)
        self._device = torch.device(device)
        self._programs = programs(workload, shapes, seed)
        self._kept: dict[str, dict[str, Tensor]] = {}
        for program in self._programs.values():
            program.local.to(self._device)

    def step(self, call: tuple[str, dict[str, Tensor] | None]) -> dict[str, Tensor]:
        """Inputs of a program, by its name -> the wanted outputs, on the CPU; without inputs: what is kept of it."""
        name, inputs = call
        if inputs is None:
            return {state: one.cpu() for state, one in self._kept[name].items()}
        program = self._programs[name]
        found = computed(program, program.local, {place: one.to(self._device) for place, one in inputs.items()})
        self._kept[name] = {state: found[state] for state in program.states}
        return {output: found[output].cpu() for output in program.wanted}
