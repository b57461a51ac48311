"""The source's way: after the backward pass, one all-reduce for each parameter."""

import torch.distributed as dist
from torch import nn

from plumbline.data_parallel.methods.interface import Replica


class Reference(Replica):
    """Gradients are summed parameter by parameter, one after another, and divided by the number of ranks."""

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        return module

    def reduce(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad, group=self.group)
                parameter.grad /= self.world


METHOD = Reference
