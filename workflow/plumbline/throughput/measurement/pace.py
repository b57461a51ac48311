"""The machine's pace: how long a small fixed piece of work takes beside what is measured.

Virtual machines whose host has other tenants, shared cores and throttled clocks change their speed for seconds at a
time, and neither load nor CPU pressure shows it. A piece of work that never changes does. Batches are discarded by its
time and not by their own, so discarding does not favour fast batches. It detects slowdowns that outlast a batch, not a
process that takes the core for part of one; on a GPU it measures the speed of launching kernels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from plumbline.throughput.measurement.timing import clocked, is_precise, synchroniser
from plumbline.throughput.settings import TrialTiming

VALUES = 2**10
"""Size for one thread: small enough to spare its L1 cache, so that call overhead dominates, as in a small model."""
SHARED_VALUES = 2**15
"""Size per thread for several: torch gives each thread of an elementwise operation at least this many."""
TIMES, FIRST_TIMES = 30, 10
"""Number of multiplications, and of untimed ones before them that bring the values back into the caches."""
TRIES = 2
"""The work is timed this often and the fastest counts: a single interruption is not the pace."""
CHECK_AGAIN = 1.25
"""The interval is computed again at this many times as many batches, since that takes longer than a short batch."""


class TimedCall(NamedTuple):
    """A timed call."""

    seconds: float
    pace_seconds: float
    """Seconds of the fixed work: the slower of the runs just before and just after the call."""


class Pace:
    """Times the fixed work, and remembers its fastest time.

    fastest: the fastest time measured before, on this device with as many threads; None where there is none.
    """

    def __init__(self, device: torch.device, threads: int, fastest: float | None = None) -> None:
        values = VALUES if threads == 1 else SHARED_VALUES * threads
        self._ones, self._products = (torch.ones(values, device=device) for _ in range(2))
        self._synchronise = synchroniser(device)
        self.fastest = math.inf if fastest is None else fastest

    def measure(self) -> float:
        """Seconds of the fixed work now, with as many threads as torch uses."""
        self._multiply(FIRST_TIMES)
        seconds = min(clocked(partial(self._multiply, TIMES), self._synchronise) for _ in range(TRIES))
        self.fastest = min(self.fastest, seconds)
        return seconds

    def is_full(self, call: TimedCall, tolerance: float) -> bool:
        """Whether the work beside the call took at most this share longer than its fastest time so far."""
        return call.pace_seconds <= (1 + tolerance) * self.fastest

    def at_full(self, calls: Sequence[TimedCall], tolerance: float) -> list[TimedCall]:
        """The calls during which the machine ran at full speed."""
        return [call for call in calls if self.is_full(call, tolerance)]

    def _multiply(self, times: int) -> None:
        for _ in range(times):
            torch.mul(self._ones, self._ones, out=self._products)


def time_batches(call: Callable[[], float], pace: Pace, timing: TrialTiming) -> Iterator[TimedCall]:
    """Times calls until the rate of those at full speed is known to `timing.precision`, or a bound of it is reached.

    `call` returns its seconds.
    """
    batches: list[TimedCall] = []
    full: list[float] = []
    check_at, before, spent = timing.min_batches, pace.measure(), 0.0
    while len(full) < timing.max_batches and len(batches) < timing.patience * timing.max_batches:
        seconds, after = call(), pace.measure()
        batches.append(TimedCall(seconds, max(before, after)))
        yield batches[-1]
        before, spent = after, spent + seconds
        full = [batch.seconds for batch in pace.at_full(batches, timing.pace_tolerance)]
        if len(batches) >= timing.min_batches and spent >= timing.patience * timing.seconds:
            return
        if len(full) < timing.min_batches:
            continue
        if sum(full) >= timing.seconds:
            return
        if len(full) >= check_at:
            if is_precise(full, timing.precision):
                return
            check_at = math.ceil(CHECK_AGAIN * len(full))


def which_count(calls: Sequence[TimedCall], pace: Pace, timing: TrialTiming) -> tuple[bool, list[bool]]:
    """Whether too few calls ran at full speed, and whether each call counts.

    Those at full speed count; where they are too few, the first `timing.max_batches` of all.
    """
    full = [pace.is_full(call, timing.pace_tolerance) for call in calls]
    if 2 * sum(full) >= timing.min_batches:
        return False, full
    return True, [number < timing.max_batches for number in range(len(calls))]
