"""The priority of a process that is measured."""

import os
import resource
from contextlib import suppress
from pathlib import Path

HIGHEST = -20
SESSION = Path("/proc/self/autogroup")


def take_priority() -> int:
    """Gives this thread, and the threads and processes it starts from now on, the highest priority; its niceness then.

    What is measured computes in short turns. Beside busy processes of equal priority the scheduler interrupts many of
    them, and what an interrupted turn takes scatters widely. Root may have the highest, others what RLIMIT_NICE allows,
    which by default is what they have. Linux may share the cores by session before it looks at processes (autogroup;
    man 7 sched), so the leader of a session gives its session the same priority; what control groups share stays.
    """
    allowed = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0] if hasattr(resource, "RLIMIT_NICE") else 0
    for niceness in (HIGHEST, allowed):
        if niceness < os.getpriority(os.PRIO_PROCESS, 0):
            with suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, niceness)
                break
    now = os.getpriority(os.PRIO_PROCESS, 0)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # a kernel without it, or one that allows it once in a tenth of a second
            SESSION.write_text(str(now))
    return now
