"""torch's fully_shard: each rank holds a share of weights, gradients and optimizer state."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from plumbline.data_parallel.methods.interface import Replica


class Fsdp(Replica):
    """Weights are gathered layer by layer for the forward and again for the backward pass; gradients are scattered."""

    traffic = 3.0
    forgets = False  # it holds them apart until the next pass that synchronises, which would add them

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        kind = next(module.parameters()).device.type
        mesh = DeviceMesh.from_group(group, kind)
        for block in module.model.transformer.h:  # type: ignore[union-attr]
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module

    def without_sync(self) -> AbstractContextManager[Any]:
        return self._unsynchronised()

    @contextmanager
    def _unsynchronised(self) -> Iterator[None]:
        module: Any = self.module
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)


METHOD = Fsdp
