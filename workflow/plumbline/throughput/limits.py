"""Stage `throughput.limits`: how fast this machine can read, copy and multiply."""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.core.files import write_json
from plumbline.core.measure.machine import describe_machine
from plumbline.core.plan.target import Spec
from plumbline.core.run.device import device_name, torch_device
from plumbline.core.run.stage import stage
from plumbline.throughput.engines.interface import DTYPES
from plumbline.throughput.measurement.autotune import threads_available
from plumbline.throughput.measurement.timing import clocked, synchroniser
from plumbline.throughput.settings import LimitsSettings

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
TIMES_CACHE = 4
"""Arrays are this many times the largest cache, so that little of them stays cached."""
LEAST_BYTES = {"cpu": 128 * 2**20, "cuda": 2**30}
ROW = 2048
SMALLEST, LARGEST = 128, 8192
"""Sizes of the square matrices that are multiplied."""
PRODUCTS = 2
"""Timed products per size."""


class LimitsSpec(Spec):
    """What decides the limits."""

    limits: LimitsSettings
    device: str
    """auto | cpu | cuda. The device is what is measured, so it decides the result."""


@stage
def limits(spec: LimitsSpec, output: Path) -> None:
    """Writes the limits to `output`: bytes and operations per second, and the raw samples."""
    chosen = torch_device(spec.device)
    seconds = spec.limits.seconds
    moved = list(bandwidth(chosen, seconds))
    multiplied = [sample for dtype in DTYPES for sample in matmul(dtype, chosen, seconds)]
    copies = [sample["bytes_per_second"] for sample in moved if sample["kind"] == "copy"]
    reads = [sample["bytes_per_second"] for sample in moved if sample["kind"] != "copy"]
    rates = {
        dtype: max(sample["flops_per_second"] for sample in multiplied if sample["dtype"] == dtype)
        for dtype in dict.fromkeys(sample["dtype"] for sample in multiplied)
    }
    found = {
        "machine": describe_machine(),
        "device": device_name(chosen),
        "threads": threads_available() if chosen.type == "cpu" else None,
        "copy_bytes_per_second": max(copies),
        "read_bytes_per_second": max(reads),
        "bandwidth_bytes_per_second": max(copies + reads),
        "matmul_flops_per_second": rates,
        "samples": {"bandwidth": moved, "matmul": multiplied},
        "spec": spec.model_dump(mode="json"),
    }
    write_json(output, found)


def bandwidth(device: torch.device, seconds: float) -> Iterator[dict[str, Any]]:
    """Samples of each kind: a copy reads and writes every byte; the others read every byte once.

    Kinds: copy, sum, dot (of two arrays), product (of a matrix and a vector, as in decoding). Each kind takes
    `seconds`, split between one thread and all threads that a trial may use: on a busy machine one may be faster.
    """
    size = max(TIMES_CACHE * cache_bytes(), LEAST_BYTES[device.type]) // 4 // ROW * ROW
    one, other = torch.ones(size, device=device), torch.zeros(size, device=device)
    vector = torch.ones(ROW, device=device)
    kinds: dict[str, tuple[Callable[[], Tensor], int]] = {
        "copy": (lambda: other.copy_(one), 2),
        "sum": (lambda: one.sum(), 1),
        "dot": (lambda: torch.dot(one, other), 2),
        "product": (lambda: torch.mv(one.view(-1, ROW), vector), 1),
    }
    counts = thread_counts(device)
    for kind, (call, arrays) in kinds.items():
        for threads in counts:
            torch.set_num_threads(threads)
            call()  # touches the pages and starts the threads
            until = time.perf_counter() + seconds / len(counts)
            for number in itertools.count():
                taken = clocked(call, synchroniser(device))
                rate = 4 * arrays * size / taken
                yield {"kind": kind, "threads": threads, "seconds": taken, "bytes_per_second": rate}
                if number and time.perf_counter() > until:
                    break


def matmul(dtype: str, device: torch.device, seconds: float) -> Iterator[dict[str, Any]]:
    """Samples of products of two n × n matrices (2n³ operations each); n doubles while there is time."""
    counts = thread_counts(device)
    for threads in counts:
        torch.set_num_threads(threads)
        until = time.perf_counter() + seconds / len(counts)
        side = SMALLEST
        while True:
            one, other = (torch.randn(side, side, device=device).to(DTYPES[dtype]) for _ in range(2))
            one @ other  # the first product of a shape selects its kernel
            taken = [clocked(partial(torch.matmul, one, other), synchroniser(device)) for _ in range(PRODUCTS)]
            for each in taken:
                rate = 2 * side**3 / each
                yield {"dtype": dtype, "threads": threads, "side": side, "seconds": each, "flops_per_second": rate}
            next_takes = 8 * min(taken) * (1 + PRODUCTS)
            if side == LARGEST or time.perf_counter() + next_takes > until:
                break
            side *= 2


def thread_counts(device: torch.device) -> list[int]:
    """One thread, and all threads that a trial may use; on a GPU the count makes no difference."""
    return sorted({1, threads_available()}) if device.type == "cpu" else [1]


def cache_bytes() -> int:
    """Size of the processor's largest cache according to Linux; 0 where it does not say."""
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    return max((1024 * int(size.removesuffix("K")) for size in sizes), default=0)


if __name__ == "__main__":
    limits.main()
