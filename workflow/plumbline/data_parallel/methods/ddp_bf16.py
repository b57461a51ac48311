"""DDP with gradients that its own hook casts to bfloat16 for the all-reduce: half the bytes, fewer digits."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from plumbline.data_parallel.methods.interface import Replica


class DdpBf16(Replica):
    """DDP whose gradients travel in bfloat16."""

    bound = None
    rounding = 2.0**-8
    exact = False
    wire_bytes_per_element = 2

    @staticmethod
    def probe(group: dist.ProcessGroup, device: torch.device) -> None:
        dist.all_reduce(torch.zeros(1, dtype=torch.bfloat16, device=device), group=group)

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        parallel = DistributedDataParallel(
            module, process_group=group, gradient_as_bucket_view=True, forward_sync_buffers=False
        )
        # behind another name: DDP refuses the hook by its own unless NCCL is there, but gloo reduces bfloat16 too
        parallel.register_comm_hook(group, lambda state, bucket: bf16_compress_hook(state, bucket))
        return parallel


METHOD = DdpBf16
