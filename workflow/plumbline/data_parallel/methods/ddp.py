"""torch's DistributedDataParallel: gradients are all-reduced in buckets while the backward pass goes on."""

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from plumbline.data_parallel.methods.interface import Replica


class Ddp(Replica):
    """DDP as it comes; the gradients are views of the buckets, which saves a copy of each."""

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        return DistributedDataParallel(
            module, process_group=group, gradient_as_bucket_view=True, forward_sync_buffers=False
        )


METHOD = Ddp
