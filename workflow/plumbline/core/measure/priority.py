"""The priority of a process that is measured."""

import os
import resource
from contextlib import suppress

HIGHEST = -20


def take_priority() -> int:
    """Gives this thread, and the threads and processes it starts from now on, the highest priority; its niceness then.

    What is measured computes in short turns. Beside busy processes of equal priority the scheduler interrupts many of
    them, and a turn that finds its caches emptied takes longer, by another share each time. Root may have the
    highest, others what RLIMIT_NICE allows, which by default is what they have. Linux shares the cores by control group
    and often by session first (autogroup): the priority counts among the processes of one.
    """
    allowed = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0] if hasattr(resource, "RLIMIT_NICE") else 0
    for niceness in (HIGHEST, allowed):
        if niceness < os.getpriority(os.PRIO_PROCESS, 0):
            with suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, niceness)
                break
    return os.getpriority(os.PRIO_PROCESS, 0)
