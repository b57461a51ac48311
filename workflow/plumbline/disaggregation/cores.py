"""Which core each process of a block runs on: one of its own, as if on a machine of its own."""

import os

CLIENT = 2
"""Its number, after those of the workers."""


def bound_to(number: int) -> int:
    """The core that this process runs on from now on: those of both workers and the client differ where three are.

    On two, the client shares the second worker's: that one has nothing to do yet while the client sends the first
    micro-batches, which the first worker would have to wait for beside it.
    """
    cores = sorted(os.sched_getaffinity(0))
    core = cores[min(number, len(cores) - 1)]
    os.sched_setaffinity(0, {core})
    return core
