"""Which core each process of a block runs on: one of its own, as if on a machine of its own."""

import os
from contextlib import suppress
from pathlib import Path

CLIENT = 2
"""Its number, after those of the workers."""
OWNER = 0
"""That of a process behind another system's calls: the first worker's, which has nothing to do in its turns."""


def bound_to(number: int) -> int:
    """The core that this process runs on from now on, with all threads: those of both workers and the client differ
    where three are.

    On two, the client shares the second worker's: that one has nothing to do yet while the client sends the first
    micro-batches, which the first worker would have to wait for beside it.
    """
    cores = sorted(os.sched_getaffinity(0))
    core = cores[min(number, len(cores) - 1)]
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), {core})
    return core
