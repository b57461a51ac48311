"""Weights on huge pages: a stream of weights from memory otherwise misses the TLB at every 4 KiB."""

import mmap
from contextlib import suppress

import torch
from torch import Tensor

LEAST_BYTES = 2**21
"""The size of a huge page; smaller tensors cannot use one."""


def on_huge_pages(tensor: Tensor) -> Tensor:
    """`tensor`, contiguous, on huge pages where Linux grants them; unchanged if it is small or not on the CPU.

    Measured on 134M float32 parameters, one thread: decoding is 1.1 to 1.28 times as fast, and three copies of the
    model are within 1.5% of each other, against 17% on the usual pages.
    """
    if tensor.device.type != "cpu" or tensor.nbytes < LEAST_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return tensor
    memory = mmap.mmap(-1, tensor.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a hint, which a kernel without huge pages refuses
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)
