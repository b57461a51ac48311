"""Processes that would outlive the one which started them.

Linux only: the kernel tells a process that its parent has ended, and gives orphans to the nearest process that asks.
"""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 1, 36, 37  # of Linux's sys/prctl.h


def signal_at_death_of_parent(number: signal.Signals) -> None:
    """Has the kernel send a signal to this process when its parent ends, however that happens; `exec` keeps it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def start_keeper() -> int:
    """Starts the leader of a new process group, which kills the group and itself when this process is gone."""
    parent, keeper = os.getpid(), os.fork()
    if keeper == 0:
        os.setpgid(0, 0)
        _kill_group_after(parent)
    with suppress(OSError):  # the child does it too, whoever comes first
        os.setpgid(keeper, keeper)
    return keeper


def end_group_with_this_process() -> None:
    """Starts a process in the group of this one, which kills the group when this process is gone."""
    parent = os.getpid()
    if os.fork() == 0:
        _kill_group_after(parent)


def _kill_group_after(parent: int) -> NoReturn:
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal_at_death_of_parent(signal.SIGTERM)
        while os.getppid() == parent:  # a cluster that preempts a job sends SIGTERM to all of its processes
            signal.sigwait({signal.SIGTERM})
        os.killpg(0, signal.SIGKILL)
    finally:
        os._exit(1)


@contextmanager
def ending_orphans() -> Iterator[None]:
    """Ends on leaving all that was started inside and still runs, even what has left its group and session.

    Until then this process, and not init, becomes the parent of what a process below it leaves running.
    """
    prctl, was_adopting = ctypes.CDLL(None).prctl, ctypes.c_int()
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(was_adopting))
    before = _below_this()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        if left := [process for process in _below_this() if process not in before]:
            import psutil

            _kill(left)
            psutil.wait_procs(left, timeout=5)
        prctl(PR_SET_CHILD_SUBREAPER, was_adopting)


def kill_below(pid: int) -> None:
    """Kills all that a process, which may have ended, has started, even what has left its group."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        _kill(psutil.Process(pid).children(recursive=True))


def _below_this() -> "list[psutil.Process]":
    """All processes below this one. Only where there is one is psutil imported: most trials of a sweep leave none."""
    lists = list(Path("/proc/self/task").glob("*/children"))  # none where the kernel does not list them
    if lists and not any(children.read_bytes() for children in lists):
        return []
    import psutil

    return psutil.Process().children(recursive=True)


def _kill(processes: "list[psutil.Process]") -> None:
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
