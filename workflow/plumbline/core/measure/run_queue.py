"""How long the threads of this process waited for a CPU although they could have run, as Linux counts it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TASKS = Path("/proc/self/task")
LONGEST = 128
"""Bytes of a schedstat file at most."""


class Times(NamedTuple):
    """Seconds of one thread."""

    computed: float
    waited: float


class RunQueue:
    """The waits of the threads that this process has now. Reading them takes microseconds.

    On a machine with other work, waiting is most of the time of a short call. It comes in slices of the scheduler,
    however long the call would have taken, and so pulls every ratio of two calls towards 1.
    """

    def __init__(self) -> None:
        self._files: list[int] = []
        for task in TASKS.glob("*/schedstat"):  # none on a kernel without statistics
            with suppress(OSError):  # a thread that has just ended
                self._files.append(os.open(task, os.O_RDONLY | os.O_CLOEXEC))

    def times(self) -> list[Times]:
        """What each thread has computed and waited since it began, in the order of their files; zeros once it ended."""
        return [_times(file) for file in self._files]

    def waited_since(self, before: list[Times], wall: float) -> float:
        """Seconds of the last `wall` seconds, since `before` was read, in which the thread that waited longest waited.

        A wait is counted when it ends, and may have begun before. So what a thread has computed meanwhile is left.
        """
        since = [
            Times(now.computed - then.computed, now.waited - then.waited)
            for now, then in zip(self.times(), before, strict=True)
        ]
        longest = max((one.waited for one in since), default=0.0)
        return max(0.0, min(longest, wall - max((one.computed for one in since), default=0.0)))

    def close(self) -> None:
        """Closes the files."""
        while self._files:
            os.close(self._files.pop())


def _times(file: int) -> Times:
    """The first two numbers of a schedstat file: nanoseconds on a CPU and on a run queue."""
    try:
        computed, waited, *_ = os.pread(file, LONGEST, 0).split()
    except OSError:
        return Times(0.0, 0.0)
    return Times(int(computed) / 1e9, int(waited) / 1e9)
