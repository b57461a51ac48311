"""The machine's pace: how long a small fixed piece of work takes beside what is measured.

A virtual machine whose host has other tenants, a shared core and a throttled clock change their speed for seconds at a
time, which neither load nor CPU pressure shows. A piece of work that is always the same does. Batches beside which it
took longer are told from others by it and not by their own seconds, so that leaving them out favours no fast batch.
It sees what lasts longer than a batch, not a process that takes the core for a part of one; on a GPU it is the pace of
launching kernels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from plumbline.throughput.measurement.timing import clocked, is_precise, synchroniser
from plumbline.throughput.settings import TrialTiming

VALUES = 2**10
"""For one thread: they leave its first cache much as it is, and a call's own time counts most, as in a small model."""
SHARED_VALUES = 2**15
"""For each of several threads: torch gives no thread of an elementwise operation fewer."""
TIMES, FIRST_TIMES = 30, 10
"""How often they are multiplied, and before, untimed, to have them in the caches again."""
TRIES = 2
"""A look is the faster of so many: what interrupts one is not the pace."""
LOOK_AGAIN = 1.25
"""The interval is looked at when there are so many times as many batches: it takes longer than a short batch."""


class Batch(NamedTuple):
    """A timed call."""

    seconds: float
    pace_seconds: float
    """Of the fixed work: the longer of those just before and just after."""


class Pace:
    """Times the fixed work, and knows the least that it took.

    fastest: the least seconds known before, of this device with as many threads; None where nothing is known.
    """

    def __init__(self, device: torch.device, threads: int, fastest: float | None = None) -> None:
        values = VALUES if threads == 1 else SHARED_VALUES * threads
        self._ones, self._products = (torch.ones(values, device=device) for _ in range(2))
        self._synchronise = synchroniser(device)
        self.fastest = math.inf if fastest is None else fastest

    def look(self) -> float:
        """Seconds of the fixed work, done once more, by as many threads as torch has."""
        self._multiply(FIRST_TIMES)
        seconds = min(clocked(partial(self._multiply, TIMES), self._synchronise) for _ in range(TRIES))
        self.fastest = min(self.fastest, seconds)
        return seconds

    def is_full(self, batch: Batch, tolerance: float) -> bool:
        """Whether the work took at most this share longer than at its fastest, as far as that is known by now."""
        return batch.pace_seconds <= (1 + tolerance) * self.fastest

    def at_full(self, batches: Sequence[Batch], tolerance: float) -> list[Batch]:
        """The batches during which the machine went at full pace."""
        return [batch for batch in batches if self.is_full(batch, tolerance)]

    def _multiply(self, times: int) -> None:
        for _ in range(times):
            torch.mul(self._ones, self._ones, out=self._products)


def time_batches(call: Callable[[], float], pace: Pace, timing: TrialTiming) -> Iterator[Batch]:
    """Calls, until the mean of those at full pace is known to `timing.precision`, or as many or as long as it allows.

    `call` gives its seconds.
    """
    batches: list[Batch] = []
    full: list[float] = []
    look_at, before, spent = timing.min_batches, pace.look(), 0.0
    while len(full) < timing.max_batches and len(batches) < timing.patience * timing.max_batches:
        seconds, after = call(), pace.look()
        batches.append(Batch(seconds, max(before, after)))
        yield batches[-1]
        before, spent = after, spent + seconds
        full = [batch.seconds for batch in pace.at_full(batches, timing.pace_tolerance)]
        if len(batches) >= timing.min_batches and spent >= timing.patience * timing.seconds:
            return
        if len(full) < timing.min_batches:
            continue
        if sum(full) >= timing.seconds:
            return
        if len(full) >= look_at:
            if is_precise(full, timing.precision):
                return
            look_at = math.ceil(LOOK_AGAIN * len(full))


def which_count(batches: Sequence[Batch], pace: Pace, timing: TrialTiming) -> tuple[bool, list[bool]]:
    """Whether too few batches were at full pace, and for each whether it counts: those, or then the first of all."""
    full = [pace.is_full(batch, timing.pace_tolerance) for batch in batches]
    if 2 * sum(full) >= timing.min_batches:
        return False, full
    return True, [number < timing.max_batches for number in range(len(batches))]
