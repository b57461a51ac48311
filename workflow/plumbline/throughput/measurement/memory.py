"""How much memory a process uses, and how much it might: on the CPU resident pages, on a GPU torch's allocator."""

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
    """Resident pages of this process, by Linux."""

    method = "VmHWM"

    def now(self) -> int:
        return status_bytes("VmRSS")

    def peak(self) -> int:
        return status_bytes("VmHWM")

    def reset(self) -> None:
        CLEAR_REFS.write_text(RESET_PEAK)


class NoMeter(Meter):
    """Where peaks cannot be reset."""

    method = None

    def now(self) -> None:
        return None

    def peak(self) -> None:
        return None

    def reset(self) -> None:
        pass


class CudaMeter(Meter):
    """Tensors on a GPU, by torch's allocator."""

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
    """What reads memory where `device` computes."""
    if device.type == "cuda":
        return CudaMeter(device)
    return ResidentMeter() if CLEAR_REFS.exists() and STATUS.exists() else NoMeter()


def status_bytes(field: str) -> int:
    """A size from /proc/self/status: VmSize, VmRSS, VmHWM."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def free_bytes(device: torch.device) -> int:
    """What this process could still take: of the GPU; or of the machine, its control group and its address space."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    room = [available_bytes()]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and STATUS.exists():
        room.append(max(0, limit - status_bytes("VmSize")))
    return min(room)
