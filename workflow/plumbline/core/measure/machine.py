"""The machine a record was made on: what a reader must know before comparing figures."""

import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from plumbline.core.measure.clocks import cpu_pressure

PACKAGES = (
    *("numpy", "scipy", "torch", "transformers", "datasets", "scikit-learn", "pandas", "snakemake"),
    *("ctranslate2", "xllamacpp", "vllm"),
)
INSTALLED = re.compile(r"([^-]+)-([^-]+)(?:-.*)?\.(?:dist|egg)-info")
"""The folder that an installer keeps beside a package: its name and version."""
NVIDIA_DRIVER = "libnvidia-ml.so.1"


def describe_machine() -> dict[str, Any]:
    """CPU, cores, memory, cgroup limits, GPUs, versions, git commit; load and pressure as they are now."""
    return {
        **_fixed(),
        "load_average": list(os.getloadavg()),
        "cpu_pressure_some_avg10_percent": cpu_pressure(),
        "memory_available_bytes": _memory("MemAvailable"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


@cache
def _fixed() -> dict[str, Any]:
    return {
        "hostname": os.uname().nodename,
        "platform": platform.platform(),
        "cpu_model": _cpu_field("model name") or platform.processor(),
        "cpu_flags": [flag for flag in (_cpu_field("flags") or "").split() if flag.startswith(("avx", "amx", "fma"))],
        "cores": len(os.sched_getaffinity(0)),
        "cgroup_cpu_max": _cgroup("cpu.max"),
        "cgroup_memory_max": _cgroup("memory.max"),
        "memory_bytes": _memory("MemTotal"),
        "gpus": _gpus(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
    }


def cgroup_file(name: str, controller: str = "") -> Path | None:
    """File `name` of the control group this process is in; of version 1 where a `controller` is named. None: no such.

    In a container the group is the root of what can be seen.
    """
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except FileNotFoundError:
        return None
    group = next((path for _, controllers, path in groups if controller in controllers.split(",")), None)
    if group is None:
        return None
    root = Path("/sys/fs/cgroup") / controller
    return next((path for path in (root / group.lstrip("/") / name, root / name) if path.exists()), None)


def available_bytes() -> int:
    """Memory that processes could take without swapping: of the machine, and below the control group's limit."""
    room = _memory("MemAvailable")
    for limit, used, controller in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory"),
    ):
        limit_file, used_file, stat_file = (cgroup_file(name, controller) for name in (limit, used, "memory.stat"))
        if limit_file and used_file and stat_file and limit_file.read_text().strip() != "max":
            stat = dict(line.split() for line in stat_file.read_text().splitlines())
            cached = int(stat["inactive_file"]) + int(stat["active_file"])  # counts as used, and is given up first
            room = min(room, int(limit_file.read_text()) - int(used_file.read_text()) + cached)
    return max(0, room)


def core_count() -> int:
    """Cores that this process can keep busy: by its affinity and its control group's CPU quota, at least 1."""
    cores, quota = len(os.sched_getaffinity(0)), _cpu_quota()
    return cores if quota is None else min(cores, max(1, int(quota)))


def gpu_count() -> int:
    """GPUs that torch may use: the driver's, or as many as CUDA_VISIBLE_DEVICES names; 0 if torch is a CPU build.

    Found without importing torch, so that planning stays fast.
    """
    if (_version("torch") or "").endswith("+cpu"):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(_gpus())
    return found if visible is None else min(found, len(list(filter(None, visible.split(",")))))


def cpu_flags() -> frozenset[str]:
    """What the processor can do, as Linux names it; empty elsewhere."""
    return frozenset((_cpu_field("flags") or _cpu_field("Features") or "").split())


def _cpu_field(name: str) -> str | None:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return None
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)


def _cpu_quota() -> float | None:
    """CPU seconds a second that the control group, of version 2 or 1, allows; None for no limit."""
    if both := cgroup_file("cpu.max"):
        limit, period = both.read_text().split()
    else:
        files = [cgroup_file(name, "cpu") for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        limit, period = (path.read_text().strip() if path else "max" for path in files)
    return None if limit in ("max", "-1") else int(limit) / int(period)


def _cgroup(name: str) -> str | None:
    path = Path("/sys/fs/cgroup") / name
    return path.read_text().strip() if path.exists() else None


def _memory(field: str) -> int:
    """A field of /proc/meminfo in bytes: psutil reads the same, and takes longer to import than a trial to start."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _version(package: str) -> str | None:
    return _installed().get(_as_folder(package))


@cache
def _installed() -> dict[str, str]:
    """Package -> version, by the names of folders alone: `importlib.metadata` takes 15 ms to import."""
    found: dict[str, str] = {}
    for path in map(Path, sys.path):
        for beside in path.glob("*-info"):
            if named := INSTALLED.fullmatch(beside.name):
                found.setdefault(_as_folder(named[1]), named[2])
    return found


def _as_folder(package: str) -> str:
    return re.sub(r"[-_.]+", "_", package).lower()


def _gpus() -> list[dict[str, Any]]:
    try:
        ctypes.CDLL(NVIDIA_DRIVER)  # takes a fraction of the import below
    except OSError:
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no NVIDIA driver: no GPU to describe
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [
            {
                "name": pynvml.nvmlDeviceGetName(handle),
                "memory_bytes": driver_answer(pynvml.nvmlDeviceGetMemoryInfo, handle, field="total"),
                "sm_clock_mhz": driver_answer(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
                "driver": driver,
            }
            for handle in handles
        ]
    finally:
        pynvml.nvmlShutdown()


def driver_answer(question: Callable[..., Any], *arguments: Any, field: str | None = None) -> int | None:
    """The driver's answer, or a field of it; None where this GPU has none, as for clocks under MIG."""
    import pynvml

    try:
        answer = question(*arguments)
    except pynvml.NVMLError:
        return None
    return int(getattr(answer, field) if field else answer)


def _git_commit() -> str | None:
    package = Path(__file__).parent
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
