"""Stage `throughput.limits`: how fast this machine can read and multiply."""

import itertools
import math
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
from plumbline.core.run.processes import in_child
from plumbline.core.run.stage import stage
from plumbline.throughput.engines.interface import DTYPES
from plumbline.throughput.measurement.autotune import threads_available
from plumbline.throughput.measurement.roofline import Bandwidth, Limits, MatmulRate
from plumbline.throughput.measurement.settings import LimitsSettings
from plumbline.throughput.measurement.timing import clocked, synchroniser

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
SMALLEST_BYTES = 2**18
"""The smallest working set."""
TIMES_CACHE = 4
"""The largest is this many times the largest cache, so that little of it stays cached."""
LEAST_BYTES = {"cpu": 128 * 2**20, "cuda": 2**30}
"""It is at least this large."""
BLOCK_BYTES = 2**23
"""A timed block of calls reads about as many bytes, or one working set if that is larger."""
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
    # In a child: threads that torch has once started make later forks of this process hang.
    read, multiplied = in_child(partial(_samples, spec.device, spec.limits.seconds))
    chosen = torch_device(spec.device)
    found = Limits(
        machine=describe_machine(),
        device=device_name(chosen),
        bandwidths=[Bandwidth.model_validate(each) for each in _best(read, "bytes_per_second", "threads", "bytes")],
        matmul_rates=[
            MatmulRate.model_validate(each) for each in _best(multiplied, "flops_per_second", "threads", "dtype")
        ],
        samples={"bandwidth": read, "matmul": multiplied},
        spec=spec.model_dump(mode="json"),
    )
    write_json(output, found.model_dump(mode="json"))


def _samples(device: str, seconds: float) -> list[list[dict[str, Any]]]:
    """Samples of the bandwidth and of the matmul rates."""
    chosen = torch_device(device)
    return [list(bandwidth(chosen, seconds)), [s for dtype in DTYPES for s in matmul(dtype, chosen, seconds)]]


def _best(samples: list[dict[str, Any]], rate: str, *keys: str) -> Iterator[dict[str, Any]]:
    """The highest `rate` among samples with the same `keys`: a busy machine only makes samples slower."""
    for values in dict.fromkeys(tuple(sample[key] for key in keys) for sample in samples):
        known = dict(zip(keys, values, strict=True))
        yield known | {rate: max(sample[rate] for sample in samples if known.items() <= sample.items())}


def bandwidth(device: torch.device, seconds: float) -> Iterator[dict[str, Any]]:
    """Samples of reading a number of bytes again and again, over a ladder of sizes and for each number of threads.

    Kinds: sum, dot (of two arrays), product (of a matrix and a vector). Each kind takes about `seconds`, split between
    sizes and threads. A sample is a block of calls, so that the clock's resolution does not matter.
    """
    counts, sizes = thread_counts(device), ladder(device)
    for threads, size in itertools.product(counts, sizes):
        torch.set_num_threads(threads)
        for kind, read in _readers(size, device).items():
            calls = max(1, BLOCK_BYTES // size)
            block = partial(_repeat, read, calls)
            block()  # touches the pages, fills the caches and starts the threads
            until = time.perf_counter() + seconds / len(counts) / len(sizes)
            for number in itertools.count():
                taken = clocked(block, synchroniser(device))
                rate = size * calls / taken
                yield {"kind": kind, "threads": threads, "bytes": size, "seconds": taken, "bytes_per_second": rate}
                if number and time.perf_counter() > until:
                    break


def ladder(device: torch.device) -> list[int]:
    """Working sets in bytes, each twice the one before, from the size of a core's cache to well beyond all caches."""
    largest = max(TIMES_CACHE * cache_bytes(), LEAST_BYTES[device.type])
    steps = math.ceil(math.log2(largest / SMALLEST_BYTES))
    return [SMALLEST_BYTES * 2**step for step in range(steps + 1)]


def _readers(size: int, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Kind -> a call that reads `size` bytes once."""
    whole, vector = torch.ones(size // 4, device=device), torch.ones(ROW, device=device)
    one, other = whole.chunk(2)
    matrix = whole.view(-1, ROW)
    return {
        "sum": partial(torch.sum, whole),
        "dot": partial(torch.dot, one, other),
        "product": partial(torch.mv, matrix, vector),
    }


def _repeat(call: Callable[[], Tensor], times: int) -> None:
    for _ in range(times):
        call()


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
