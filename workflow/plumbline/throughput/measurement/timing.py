"""Clocks and warm-up of timed calls, and statistics of their seconds."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import fmean, stdev

import numpy as np
import torch
from numpy.typing import ArrayLike

from plumbline.core.statistics.rates import rate_interval
from plumbline.throughput.measurement.settings import TrialTiming

STEADY_CALLS, STEADY_SHARE = 3, 0.05
OUTLIER_DEVIATIONS = 3.0
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
HOPELESS = 1.5
"""If a normal interval is this many times too wide, the bootstrap's is too wide as well."""
CHECK_AGAIN = 1.25
"""The interval is computed again at this many times as many batches, since that takes longer than a short batch."""


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collects garbage now, and then not until the block ends."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def synchroniser(device: torch.device) -> Callable[[], None]:
    """A function that waits until the device has finished its work."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


def clocked(call: Callable[[], object], synchronise: Callable[[], None]) -> float:
    """Seconds that `call` takes; the device is synchronised before the clock is read."""
    synchronise()
    began = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - began


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether the last three calls are within 5% of each other."""
    last = seconds[-STEADY_CALLS:]
    return len(last) == STEADY_CALLS and max(last) <= (1 + STEADY_SHARE) * min(last)


def warm_up(call: Callable[[], float], timing: TrialTiming) -> list[float]:
    """Seconds of calls until they are steady or `timing` allows no more; at least three where it allows them."""
    seconds: list[float] = []
    while len(seconds) < timing.warmup_at_most and not is_steady(seconds):
        if len(seconds) >= STEADY_CALLS and sum(seconds) > timing.seconds:
            break
        seconds.append(call())
    return seconds


def time_batches(call: Callable[[], float], timing: TrialTiming) -> Iterator[float]:
    """Seconds of calls, until their rate is known to `timing.precision` or a bound of `timing` is reached.

    `call` returns its seconds.
    """
    seconds: list[float] = []
    check_at = timing.min_batches
    while len(seconds) < timing.max_batches:
        seconds.append(call())
        yield seconds[-1]
        if len(seconds) < timing.min_batches:
            continue
        if sum(seconds) >= timing.seconds:
            return
        if len(seconds) >= check_at:
            if is_precise(seconds, timing.precision):
                return
            check_at = math.ceil(CHECK_AGAIN * len(seconds))


def is_precise(seconds: Sequence[float], precision: float) -> bool:
    """Whether both ends of the rate's 95% interval are within this share of it."""
    if len(seconds) < 2 or HOPELESS * precision < 1.96 * stdev(seconds) / len(seconds) ** 0.5 / fmean(seconds):
        return False  # by a normal interval, which takes microseconds
    low, high = rate_interval(np.column_stack([seconds, np.ones(len(seconds))]))
    rate = len(seconds) / sum(seconds)
    return max(rate - low, high - rate) <= precision * rate


def drift(values: ArrayLike) -> float | None:
    """How far values rise from the first to the last, by the Theil-Sen slope, as a share of their mean.

    None for fewer than three.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < 3:
        return None
    first, second = np.triu_indices(len(series), k=1)
    slope = np.median((series[second] - series[first]) / (second - first))
    return float(slope * (len(series) - 1) / series.mean())


def has_drifted(values: ArrayLike, precision: float) -> bool:
    """Whether values drift by more than `precision`, and by more than they would by chance.

    Chance: Kendall's rank correlation with time, two-sided at 5% by its normal approximation (Mann 1945).
    """
    series = np.asarray(values, dtype=np.float64)
    share = drift(series)
    if share is None or abs(share) <= precision:
        return False
    n = len(series)
    first, second = np.triu_indices(n, k=1)
    score = np.sign(series[second] - series[first]).sum()
    return bool(abs(score) - 1 > 1.96 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18))


def outliers(values: ArrayLike) -> int:
    """How many values are more than three scaled median absolute deviations from the median."""
    series = np.asarray(values, dtype=np.float64)
    distance = np.abs(series - np.median(series))
    allowed = OUTLIER_DEVIATIONS * MAD_TO_DEVIATION * np.median(distance)
    return int((distance > max(allowed, 1e-9 * np.median(series))).sum())
