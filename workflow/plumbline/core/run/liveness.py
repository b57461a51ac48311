"""Whether the process that writes a journal still lives."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plumbline.core.run.progress import attempts

SILENT_SECONDS = 120.0
"""A stage on another machine counts as running while its last event is younger than this."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str | None:
    """What tells this boot of this machine from every other; None where the system has no such thing."""
    return BOOT.read_text().strip() if BOOT.exists() else None


def is_this_boot(start: Mapping[str, Any]) -> bool:
    """Whether the process whose `start` event this is was started on this machine since it booted."""
    boot = boot_id()
    return boot is not None and start.get("boot") == boot


def process_status(start: Mapping[str, Any]) -> str | None:
    """The status, as psutil names it, of the process on this machine whose `start` event this is; None once it ended.

    A later process with the same number does not count: it began after the event was written.
    """
    import psutil  # here, because it takes longer to import than a stage that writes a journal takes to start

    try:
        process = psutil.Process(int(start["pid"]))
        return process.status() if process.create_time() <= start["time"] + 1 else None
    except psutil.NoSuchProcess:
        return None


def is_running(events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last attempt in a journal's `events` is still at work."""
    found = attempts(events)
    if not found or events[-1].get("event") in ("end", "failed"):
        return False
    start = found[-1][0]
    if is_this_boot(start):
        return process_status(start) not in (None, "zombie")
    return bool(time.time() - events[-1]["time"] < SILENT_SECONDS)
