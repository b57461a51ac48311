"""Energy from hardware counters: RAPL for processors, NVML for an NVIDIA GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pynvml
import torch

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Energy counters that always run."""

    method: str
    """RAPL | NVML."""
    read: Callable[[], list[float]]
    """Joules of each counter since an arbitrary origin."""
    span: list[float]
    """Joules at which each counter wraps around to zero; infinite where it does not."""

    def between(self, before: list[float], after: list[float]) -> float:
        """Joules between two readings that are less than a span apart."""
        pairs = zip(before, after, self.span, strict=True)
        return sum(then - first if then >= first else then - first + span for first, then, span in pairs)


def counters(device: torch.device) -> Counters | None:
    """The counters of the GPU, or of all processors of the machine; None where they cannot be read."""
    return nvml(device) if device.type == "cuda" else rapl()


def rapl(folder: Path = POWERCAP) -> Counters | None:
    """Linux's counters of whole processor packages, which most systems let only root read."""
    zones = [
        zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1
    ]  # the others are parts of a package
    files = [zone / "energy_uj" for zone in zones]
    try:
        spans = [int((zone / "max_energy_range_uj").read_text()) * 1e-6 for zone in zones]
        for file in files:
            file.read_text()
    except OSError:
        return None
    if not files:
        return None
    return Counters(method="RAPL", read=lambda: [int(file.read_text()) * 1e-6 for file in files], span=spans)


def nvml(device: torch.device) -> Counters | None:
    """The driver's counter of one whole GPU, whoever uses it."""
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return Counters(
        method="NVML",
        read=lambda: [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3],
        span=[float("inf")],
    )
