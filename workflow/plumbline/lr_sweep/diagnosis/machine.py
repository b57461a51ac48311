"""This machine right now: its cores, the other processes on them, the state of its GPUs."""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field

import psutil
import pynvml

from plumbline.core.measure.clocks import cpu_pressure
from plumbline.core.measure.machine import core_count, driver_answer

BUSY_SHARE = 0.25
"""A process that uses at least this share of a core counts as a neighbour."""
THROTTLES = {
    "nvmlClocksEventReasonSwPowerCap": "power cap",
    "nvmlClocksEventReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksEventReasonSwThermalSlowdown": "too hot (software)",
    "nvmlClocksEventReasonHwThermalSlowdown": "too hot (hardware)",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power brake",
}


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another process that is busy on this machine."""

    pid: int
    name: str
    cores: float
    """Cores it keeps busy: CPU seconds per second."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as NVML reports it."""

    name: str
    throttles: tuple[str, ...] = ()
    """Why its clock is throttled right now."""
    sm_clock_mhz: int | None = None
    sm_clock_limit_mhz: int | None = None
    processes: tuple[int, ...] = ()
    """Ids of the processes that compute on it, excluding ours."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the causes need to know about the machine."""

    cores: int
    neighbours: tuple[Neighbour, ...] = ()
    pressure_percent: float | None = None
    steal_share: float = 0.0
    """Share of the CPU time that the hypervisor gave to other guests."""
    gpus: tuple[Gpu, ...] = field(default=())
    cpu_mhz: float | None = None


def observe(ours: Collection[int], seconds: float = 0.5) -> Machine:
    """Watches this machine for `seconds`. ours: process ids of the trials, which are not counted as neighbours."""
    excluded = _family(ours)
    before, began, steal = _cpu_times(excluded), time.monotonic(), psutil.cpu_times()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    after, steal_after = _cpu_times(excluded), psutil.cpu_times()
    busy = [
        Neighbour(pid=pid, name=name, cores=(cpu - before[pid, name]) / elapsed)
        for (pid, name), cpu in after.items()
        if (pid, name) in before and cpu - before[pid, name] >= BUSY_SHARE * elapsed
    ]
    cores = core_count()
    stolen = getattr(steal_after, "steal", 0.0) - getattr(steal, "steal", 0.0)
    frequency = psutil.cpu_freq()
    return Machine(
        cores=cores,
        neighbours=tuple(sorted(busy, key=lambda neighbour: -neighbour.cores)),
        pressure_percent=cpu_pressure(),
        steal_share=stolen / (elapsed * (psutil.cpu_count() or cores)),
        gpus=_gpus(excluded),
        cpu_mhz=frequency.current if frequency else None,
    )


def _family(ours: Collection[int]) -> set[int]:
    """`ours`, this process, its ancestors, and the processes that `ours` started."""
    family = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for pid in ours:
        try:
            process = psutil.Process(pid)
            family |= {pid, *(child.pid for child in process.children(recursive=True))}
        except psutil.NoSuchProcess:
            continue  # it has ended in the meantime
    return family


def _cpu_times(excluded: Collection[int]) -> dict[tuple[int, str], float]:
    times = {}
    for process in psutil.process_iter(["pid", "name", "cpu_times"]):
        cpu = process.info["cpu_times"]
        if cpu is not None and process.info["pid"] not in excluded:
            times[process.info["pid"], process.info["name"]] = cpu.user + cpu.system
    return times


def _gpus(excluded: Collection[int]) -> tuple[Gpu, ...]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()  # no NVIDIA driver, no GPU
    try:
        return tuple(_gpu(pynvml.nvmlDeviceGetHandleByIndex(i), excluded) for i in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: object, excluded: Collection[int]) -> Gpu:
    reasons = driver_answer(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
    throttles = (text for name, text in THROTTLES.items() if reasons & getattr(pynvml, name, 0))
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        throttles=tuple(throttles),
        sm_clock_mhz=driver_answer(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        sm_clock_limit_mhz=driver_answer(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        processes=_others(handle, excluded),
    )


def _others(handle: object, excluded: Collection[int]) -> tuple[int, ...]:
    try:
        running = [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except pynvml.NVMLError:  # not reported to everyone, for instance under MIG
        return ()
    # in a container these may be the host's process ids, and ours would look like someone else's
    return tuple(pid for pid in running if pid not in excluded and psutil.pid_exists(pid))
