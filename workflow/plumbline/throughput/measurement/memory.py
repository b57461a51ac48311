"""How much memory a process uses and may use: resident pages on the CPU, torch's allocator on a GPU."""

import resource
from abc import ABC, abstractmethod
from pathlib import Path

import torch

from plumbline.core.measure.machine import available_bytes

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): resets the peak resident set size, VmHWM, to what is resident now


class Meter(ABC):
    """Reads memory in use and its peak since the last reset, in bytes; None where the system does not tell."""

    method: str | None

    @abstractmethod
    def now(self) -> int | None: ...

    @abstractmethod
    def peak(self) -> int | None: ...

    @abstractmethod
    def reset(self) -> None: ...


class ResidentMeter(Meter):
    """Resident pages of this process, as Linux counts them."""

    method = "VmHWM"

    def now(self) -> int:
        return status_bytes("VmRSS")

    def peak(self) -> int:
        return status_bytes("VmHWM")

    def reset(self) -> None:
        CLEAR_REFS.write_text(RESET_PEAK)


class NoMeter(Meter):
    """For systems on which peaks cannot be reset."""

    method = None

    def now(self) -> None:
        return None

    def peak(self) -> None:
        return None

    def reset(self) -> None:
        pass


class CudaMeter(Meter):
    """Tensors on a GPU, as torch's allocator counts them."""

    method = "torch.cuda"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)


def meter(device: torch.device) -> Meter:
    """The meter for the memory that `device` computes in."""
    if device.type == "cuda":
        return CudaMeter(device)
    return ResidentMeter() if CLEAR_REFS.exists() and STATUS.exists() else NoMeter()


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
