"""How much memory a process uses and may use: resident pages on the CPU, torch's allocator on a GPU."""

import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from plumbline.core.measure.machine import available_bytes

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): resets the peak resident set size, VmHWM, to what is resident now


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Reads memory in use and its peak since the last reset, in bytes; None where the system does not tell."""

    method: str | None
    now: Callable[[], int | None]
    peak: Callable[[], int | None]
    reset: Callable[[], object]


def meter(device: torch.device, *, with_torch: bool = True) -> Meter:
    """The meter for the memory that `device` computes in: torch's allocator on a GPU, resident pages on the CPU.

    It reads nothing on a GPU where the engine does not allocate `with_torch`.
    """
    if device.type == "cuda" and with_torch:
        return Meter(
            method="torch.cuda",
            now=partial(torch.cuda.memory_allocated, device),
            peak=partial(torch.cuda.max_memory_allocated, device),
            reset=partial(torch.cuda.reset_peak_memory_stats, device),
        )
    if device.type == "cpu" and CLEAR_REFS.exists() and STATUS.exists():
        return Meter(
            method="VmHWM",
            now=partial(status_bytes, "VmRSS"),
            peak=partial(status_bytes, "VmHWM"),
            reset=partial(CLEAR_REFS.write_text, RESET_PEAK),
        )
    return Meter(method=None, now=lambda: None, peak=lambda: None, reset=lambda: None)


def status_bytes(field: str) -> int:
    """A size from /proc/self/status: VmSize, VmRSS, VmHWM."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def free_bytes(device: torch.device) -> int:
    """Memory that this process could still take: on the GPU, or on the machine within its cgroup and address space."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    room = [available_bytes()]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and STATUS.exists():
        room.append(max(0, limit - status_bytes("VmSize")))
    return min(room)
