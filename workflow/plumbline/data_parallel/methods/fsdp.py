"""torch's fully_shard: each rank holds a share of weights, gradients and optimizer state."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from plumbline.data_parallel.methods.interface import Replica


class Fsdp(Replica):
    """Weights are gathered layer by layer for the forward and again for the backward pass; gradients are scattered."""

    forgets = False  # it holds them apart until the next pass that synchronises, which would add them

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        kind = next(module.parameters()).device.type
        mesh = DeviceMesh.from_group(group, kind)
        for block in module.model.transformer.h:  # type: ignore[union-attr]
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(module, mesh=mesh, reshard_after_forward=False)  # its backward pass follows at once
        return module

    def wire_bytes(self, accumulation: int) -> float:
        """Each micro-batch gathers layers twice and the rest once; the last one scatters all gradients."""
        module: Any = self.module
        everything = sum(each.numel() * each.element_size() for each in module.parameters())
        layers = sum(each.numel() * each.element_size() for each in module.model.transformer.h.parameters())
        gathered = accumulation * (2 * layers + everything - layers)
        return (self.world - 1) / self.world * (gathered + everything)

    @staticmethod
    def probe(group: dist.ProcessGroup, device: torch.device) -> None:
        one, whole = torch.zeros(1, device=device), torch.zeros(dist.get_world_size(group), device=device)
        dist.all_gather_into_tensor(whole, one, group=group)
        dist.reduce_scatter_tensor(one, whole, group=group)

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
