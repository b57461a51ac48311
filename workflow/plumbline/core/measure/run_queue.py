"""How long the threads of this process waited for a CPU although they could have run, as Linux counts it."""

import os
from contextlib import suppress
from pathlib import Path

TASKS = Path("/proc/self/task")
LONGEST = 128
"""Bytes of a schedstat file at most."""


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

    def waits(self) -> list[float]:
        """Seconds that each thread has waited since it began, in the order of their files; 0 for one that has ended."""
        return [_wait(file) for file in self._files]

    def longest_since(self, before: list[float]) -> float:
        """Seconds that the thread which waited longest has waited since `before`, which `waits` gave."""
        return max((now - then for now, then in zip(self.waits(), before, strict=True)), default=0.0)

    def close(self) -> None:
        """Closes the files."""
        while self._files:
            os.close(self._files.pop())


def _wait(file: int) -> float:
    """The second number of a schedstat file: nanoseconds on a run queue."""
    try:
        return int(os.pread(file, LONGEST, 0).split()[1]) / 1e9
    except OSError:
        return 0.0
