"""The clocks of this process: what a diagnosis needs to tell waiting from working. Read at log intervals, ~50 µs."""

import time
from pathlib import Path

SCHEDULER = Path("/proc/self/schedstat")
PRESSURE = Path("/proc/pressure/cpu")


def clocks() -> dict[str, float | None]:
    """Seconds on each clock, from arbitrary origins: only differences within one process mean something.

    boottime: runs on while the machine is suspended; monotonic: does not. process: CPU time of all threads.
    run_delay: how long the main thread was ready to run and no core was free (Linux, /proc/self/schedstat).
    pressure_cpu_avg10: percent of the last ten seconds in which some process waited for a core.
    What the system does not tell is None.
    """
    monotonic = time.monotonic()
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return {
        "boottime": monotonic if boot is None else time.clock_gettime(boot),
        "monotonic": monotonic,
        "process": time.process_time(),
        "run_delay": _run_delay(),
        "pressure_cpu_avg10": cpu_pressure(),
    }


def _run_delay() -> float | None:
    try:
        return int(SCHEDULER.read_bytes().split()[1]) * 1e-9
    except FileNotFoundError:
        return None


def cpu_pressure() -> float | None:
    """Percent of the last ten seconds in which some process waited for a core; None where the system does not say."""
    try:
        fields = PRESSURE.read_text().split()
    except OSError:  # no such file, or a kernel that was told not to keep it
        return None
    return float(fields[1].removeprefix("avg10="))
